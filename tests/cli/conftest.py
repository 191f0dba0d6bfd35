"""Fixtures that run a command in this process, or in a separate one."""

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
    """Return a function that runs the command line in this process.

    It runs in an empty directory, and without OLLA_ variables except OLLA_HOME, which protects the
    user's own store.
    """
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("OLLA_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OLLA_HOME", str(tmp_path / "home"))

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, arguments, catch_exceptions=False)

    return run


class Running:
    """A command in a separate process."""

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
        # Otherwise a command without the expected output would block the test.
        self._deadline = threading.Timer(15, self._process.kill)
        self._deadline.start()

    def line_with(self, text: str) -> str:
        """Return the next line that contains `text`."""
        assert self._process.stdout is not None
        seen = []
        for line in self._process.stdout:
            if text in line:
                return line
            seen.append(line)
        raise AssertionError(f"no line with {text!r} in:\n{''.join(seen)}")

    def stop(self) -> tuple[int, str]:
        """Send SIGTERM; return the exit status and the remaining output."""
        self._process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> tuple[int, str]:
        """Wait for the command to end; return its exit status and the remaining output."""
        rest, _ = self._process.communicate()
        self._deadline.cancel()
        return self._process.returncode, rest

    def kill(self) -> None:
        """Make sure that the process has ended."""
        self._deadline.cancel()
        self._process.kill()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process.wait()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Return a function that starts a command in a separate process, in an empty directory."""
    running: list[Running] = []

    def begin(*arguments: str) -> Running:
        running.append(Running(arguments, tmp_path))
        return running[-1]

    yield begin
    for each in running:
        each.kill()
