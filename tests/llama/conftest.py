"""Run real llama.cpp servers with a tiny model, each in its own process."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ALIAS = "tiny-random"
SLOTS = 2


@contextmanager
def serving(model: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run a server; yields its address and process, which is killed at the end."""
    command = [sys.executable, str(HERE / "backend.py"), str(model), ALIAS, str(SLOTS)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            address = next((line for line in process.stdout if line.startswith("http")), "")
            assert address, "the llama.cpp server did not start"
            yield address.strip(), process
        finally:
            process.kill()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Provide the model's file. A separate process writes it, so that warnings of gguf do not fail
    tests."""
    model = tmp_path_factory.mktemp("model") / "tiny.gguf"
    subprocess.run([sys.executable, HERE / "tiny_gguf.py", model], check=True)
    return model


@pytest.fixture(scope="session")
def llama(tiny_model: Path) -> Iterator[str]:
    """Provide the address of a server that all tests share."""
    with serving(tiny_model) as (address, _):
        yield address


@pytest.fixture
def start_llama(tiny_model: Path) -> Iterator[Callable[[], tuple[str, subprocess.Popen[str]]]]:
    """Provide a function that starts a server which the test may kill or stop."""
    with ExitStack() as running:
        yield lambda: running.enter_context(serving(tiny_model))
