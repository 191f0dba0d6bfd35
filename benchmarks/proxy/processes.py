"""Start measured processes, pinned to a core, and read their CPU time and memory."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

__all__ = ["Measured", "cpu_seconds", "free_port", "pinned", "resident_bytes", "start"]

PROXY_CORE = 1
LOAD_CORE = 0


class Measured:
    """A listening process, either measured or a helper."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, start_up: float) -> None:
        self.process = process
        self.port = port
        self.start_up = start_up
        """Seconds from the start to the first accepted connection."""

    @property
    def pid(self) -> int:
        """The ID of its first process."""
        return self.process.pid

    def stop(self) -> None:
        """Terminate it, and kill it after ten seconds."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)


def start(
    command: list[str],
    port: int,
    log: Path,
    *,
    core: int,
    environment: dict[str, str] | None = None,
    patience: float = 60.0,
) -> Measured:
    """Start a command that listens on `port`, and wait until it does.

    Raises:
        RuntimeError: it exited, or did not listen within `patience` seconds.
    """
    begin = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*pinned(core), *command],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
        )
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return Measured(process, port, time.perf_counter() - begin)
        except OSError:
            exited = process.poll() is not None
            if exited or time.perf_counter() - begin > patience:
                process.kill()
                process.wait()
                tail = log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{command[0]} did not listen:\n{tail}") from None
            time.sleep(0.002)


def start_backend(folder: Path) -> Measured:
    """Start the backend."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.proxy.backend", str(port)]
    return start(command, port, folder / "backend.log", core=LOAD_CORE)


def pinned(core: int) -> list[str]:
    """Return the prefix that pins a command to a core, if there is more than one."""
    return ["taskset", "-c", str(core)] if (os.cpu_count() or 1) > 1 else []


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _tree(pid: int) -> list[int]:
    tree = [pid]
    for process in tree:
        for task in Path(f"/proc/{process}/task").glob("*"):
            try:
                tree += [int(each) for each in (task / "children").read_text().split()]
            except OSError:
                continue
    return tree


def cpu_seconds(pid: int) -> float:
    """Return the run time of all threads of a process and its children (schedstat: nanoseconds)."""
    total = 0
    for process in _tree(pid):
        for task in Path(f"/proc/{process}/task").glob("*"):
            try:
                total += int((task / "schedstat").read_text().split()[0])
            except OSError:
                continue
    return total / 1e9


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process and its children."""
    page = os.sysconf("SC_PAGE_SIZE")
    total = 0
    for process in _tree(pid):
        try:
            total += int(Path(f"/proc/{process}/statm").read_text().split()[1]) * page
        except OSError:
            continue
    return total
