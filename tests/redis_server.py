"""A real Redis (or Valkey) server for tests: on this machine, keeping nothing."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

import pytest

__all__ = ["RedisServer", "redis_server"]

_BINARIES = ("redis-server", "valkey-server")
_SECONDS = 10.0


class RedisServer:
    """A server on a port of its own, which can be stopped, frozen and started again."""

    def __init__(self, binary: str, folder: str, password: str | None = None) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.port: int = server.getsockname()[1]
        self.socket = f"{folder}/redis.sock"
        self._command = [
            *(binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", folder),
            *("--unixsocket", self.socket),
            *("--save", "", "--appendonly", "no", "--daemonize", "no"),
            *(("--requirepass", password) if password is not None else ()),
        ]
        self._password = password
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        secret = f":{self._password}@" if self._password is not None else ""
        return f"redis://{secret}127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it with nothing in it; returns when it answers."""
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        deadline = monotonic() + _SECONDS
        while True:
            try:
                self.ask("PING")
                return
            except OSError:
                assert monotonic() < deadline, "the server does not answer"
                assert self._process.poll() is None, "the server has ended"

    def stop(self) -> None:
        """End it."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait(_SECONDS)

    def restart(self) -> None:
        """Let it run, however it was left; what had been stopped has nothing in it."""
        if self._process is None:
            self.start()
        else:
            self.thaw()

    def freeze(self) -> None:
        """It keeps its connections and says nothing any more."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def ask(self, *words: str) -> str:
        """The answer to one command as it comes over the wire; for short answers."""
        with socket.create_connection(("127.0.0.1", self.port), _SECONDS) as connection:
            if self._password is not None:
                connection.sendall(_packed("AUTH", self._password))
                connection.recv(4096)
            connection.sendall(_packed(*words))
            return connection.recv(1 << 16).decode()


def _packed(*words: str) -> bytes:
    told = "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
    return f"*{len(words)}\r\n{told}".encode()


@contextmanager
def redis_server(password: str | None = None) -> Iterator[RedisServer]:
    """A running server. Skips the test where there is none to run, unless OLLA_TEST_REQUIRE names
    redis: then it fails."""
    binary = next((found for found in map(shutil.which, _BINARIES) if found), None)
    if binary is None:
        told = "needs Redis or Valkey: apt install redis-server"
        if "redis" in os.environ.get("OLLA_TEST_REQUIRE", ""):
            pytest.fail(told)
        pytest.skip(told)
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(binary, folder, password)
        try:
            server.start()
            yield server
        finally:
            server.stop()
