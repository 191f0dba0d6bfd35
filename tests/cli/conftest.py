"""What the tests of commands share: running one in this process, and one in its own."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from olla.cli import main

Invoke = Callable[..., Result]


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Run the command line in this process, in an empty directory, without OLLA_ variables but
    the one that keeps it away from the user's own store."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("OLLA_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OLLA_HOME", str(tmp_path / "home"))

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, arguments, catch_exceptions=False)

    return run


class Running:
    """A command in its own process."""

    def __init__(self, arguments: tuple[str, ...], directory: Path) -> None:
        environ = {name: each for name, each in os.environ.items() if not name.startswith("OLLA_")}
        environ["OLLA_HOME"] = str(directory / "home")
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "olla", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=directory,
            env=environ,
        )
        # A command that never says what is awaited would hold the test up.
        self._deadline = threading.Timer(15, self._process.kill)
        self._deadline.start()

    def line_with(self, text: str) -> str:
        """The next line that holds `text`."""
        assert self._process.stdout is not None
        seen = []
        for line in self._process.stdout:
            if text in line:
                return line
            seen.append(line)
        raise AssertionError(f"no line with {text!r} in:\n{''.join(seen)}")

    def stop(self) -> tuple[int, str]:
        """Ask it to end; its exit status, and what it still wrote."""
        self._process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> tuple[int, str]:
        """Its exit status when it has ended by itself, and what it still wrote."""
        rest, _ = self._process.communicate()
        self._deadline.cancel()
        return self._process.returncode, rest

    def kill(self) -> None:
        """Make sure that it is gone."""
        self._deadline.cancel()
        self._process.kill()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process.wait()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start a command in its own process, in an empty directory."""
    running: list[Running] = []

    def begin(*arguments: str) -> Running:
        running.append(Running(arguments, tmp_path))
        return running[-1]

    yield begin
    for each in running:
        each.kill()
