"""A log whose reader stalls or exits, or whose disk is full, does not block the router."""

import fcntl
import http.client
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.routers import ThreadedFleet, settings_text, threaded_fleet

MODEL = "llama3.2:latest"
ASK = json.dumps({"model": MODEL, "prompt": "x", "stream": False, "options": {"num_predict": 1}})
BATCH = 500
"""Requests per flood."""
STOPS_SECONDS_MAX = 20
"""Limit for a router to exit after SIGTERM; its own limits are a few seconds."""


@pytest.fixture(scope="module")
def fleet() -> Iterator[ThreadedFleet]:
    """Provide a node for the routers of these tests."""
    with threaded_fleet({"a": (MODEL,)}) as running:
        yield running


def environment(folder: Path) -> dict[str, str]:
    """Return an environment without olla settings and with an empty store."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("OLLA_")}
    return {**inherited, "OLLA_HOME": str(folder / "home")}


@pytest.fixture
def configure(fleet: ThreadedFleet, tmp_path: Path) -> Callable[..., str]:
    """Provide a function that writes a configuration over the node."""

    def write(more: str = "", output: str = "stdout") -> str:
        text = settings_text({"a": fleet.fleet.nodes["a"].url}, more)
        logging = f"logging: {{level: info, output: {output}}}"
        path = tmp_path / "olla.yaml"
        path.write_text(text.replace("logging: {level: debug}", logging))
        return str(path)

    return write


class Reader:
    """The reading end of a log; it reads only on demand."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.text = ""

    def until(self, wanted: str) -> str:
        """Read until a text appears; returns the first line that contains it."""
        while wanted not in self.text or not self.text.endswith("\n"):
            ready, _, _ = select.select([self.descriptor], [], [], 15)
            data = os.read(self.descriptor, 65536) if ready else b""
            assert data, f"no {wanted!r} in {self.text[-2000:]!r}"
            self.text += data.decode()
        return next(line for line in self.text.splitlines() if wanted in line)

    def rest(self) -> str:
        """Read everything to the end."""
        while data := os.read(self.descriptor, 65536):
            self.text += data.decode()
        return self.text


Started = tuple["subprocess.Popen[bytes]", Reader]


@contextmanager
def started(*arguments: str, cwd: Path, stream: str = "stdout") -> Iterator[Started]:
    """Run a router that logs to a small pipe, which only the returned reader reads."""
    read_end, write_end = os.pipe()
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 4096)
    process = subprocess.Popen(
        [sys.executable, "-m", "olla", *arguments],
        cwd=cwd,
        env=environment(cwd),
        stdout=write_end if stream == "stdout" else subprocess.DEVNULL,
        stderr=write_end if stream == "stderr" else None,
    )
    os.close(write_end)
    killer = threading.Timer(80, process.kill)
    killer.start()
    try:
        yield process, Reader(read_end)
    finally:
        killer.cancel()
        process.kill()
        process.wait()
        with suppress(OSError):
            os.close(read_end)


def listening(reader: Reader, text: str = '"listening"') -> int:
    """Wait until the router listens; returns its port."""
    line = reader.until(text)
    match = re.search(r"http://127\.0\.0\.1:(\d+)", line)
    assert match is not None
    return int(match[1])


def get(port: int, path: str) -> str:
    """Send a GET; returns the body of its 200 response."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        assert response.status == 200
        return response.read().decode()
    finally:
        connection.close()


def ask(port: int, times: int = 1) -> None:
    """Send requests for one token each, one after the other."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    for _ in range(times):
        connection.request("POST", "/api/generate", ASK)
        response = connection.getresponse()
        assert response.status == 200
        response.read()
    connection.close()


def flood(port: int) -> None:
    """Pipeline rejected requests that write long log lines."""
    one = b"GET /nothing%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % (b"y" * 300)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        for _ in range(BATCH // 50):
            connection.sendall(one * 50)
            got = b""
            while got.count(b"HTTP/1.1 ") < 50 or not got.endswith(b"}}}"):
                data = connection.recv(65536)
                assert data
                got += data


def dropped(port: int, log: str) -> float:
    """Return how many lines of a log were dropped, according to the metrics."""
    name = rf'olla_log_lines_dropped_total{{log="{log}"}}'
    lines = [line for line in get(port, "/metrics").splitlines() if line.startswith(name)]
    return float(lines[0].rsplit(" ", 1)[1]) if lines else 0.0


def stop(process: "subprocess.Popen[bytes]") -> int:
    """Send SIGTERM; returns the exit status."""
    process.send_signal(signal.SIGTERM)
    return process.wait(STOPS_SECONDS_MAX)


@pytest.mark.timeout(90)
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_stalled_log_reader_loses_lines_but_no_requests(
    configure: Callable[..., str], tmp_path: Path, stream: str
) -> None:
    """With a full pipe, requests and health checks are answered, and log lines are dropped and
    counted. Once the reader continues, the log says how many were dropped. All other lines are
    complete."""
    serve = "serve", "--config", configure(output=stream)
    with started(*serve, cwd=tmp_path, stream=stream) as (process, reader):
        port = listening(reader)
        while not dropped(port, "requests"):
            flood(port)
            ask(port)
            assert get(port, "/internal/health")
        notice = json.loads(reader.until("lines were dropped"))
        assert (notice["level"], notice["log"]) == ("warning", "requests")
        ask(port)
        process.send_signal(signal.SIGTERM)
        lines = [json.loads(line) for line in reader.rest().splitlines()]
        assert process.wait(STOPS_SECONDS_MAX) == 0
    assert lines[-1]["message"] == "stopped"
    notices = [line["lines"] for line in lines if line.get("message") == "lines were dropped"]
    written = sum("duration_ms" in line for line in lines)
    assert (written + sum(notices)) % BATCH in range(1, 20)  # each request is written or counted


@pytest.mark.timeout(90)
def test_a_stalled_log_reader_does_not_delay_shutdown(
    configure: Callable[..., str], tmp_path: Path
) -> None:
    """After SIGTERM with a full pipe, unread lines are discarded after some seconds."""
    with started("serve", "--config", configure(), cwd=tmp_path) as (process, reader):
        port = listening(reader)
        flood(port)
        assert stop(process) == 0
        lines = reader.rest().splitlines()
    assert "stopped" not in lines[-1]


@pytest.mark.timeout(90)
def test_a_stalled_log_reader_does_not_block_the_demo(tmp_path: Path) -> None:
    """The demo serves, and exits with status 0."""
    demo = "demo", "--port", "0", "--time-scale", "0.001"
    with started(*demo, cwd=tmp_path) as (process, reader):
        port = listening(reader, "olla is at ")
        while not dropped(port, "requests"):
            flood(port)
            ask(port)
            assert get(port, "/internal/health")
        assert stop(process) == 0


@pytest.mark.timeout(90)
def test_a_pipe_that_is_full_at_startup_does_not_block(
    fleet: ThreadedFleet, configure: Callable[..., str], tmp_path: Path, free_port: int
) -> None:
    """Another process has filled the pipe; `serve` and `demo` start listening regardless."""
    for arguments in (
        ("serve", "--config", configure(), "--port", str(free_port)),
        ("demo", "--port", str(free_port), "--time-scale", "0.001"),
    ):
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        with suppress(BlockingIOError):
            while True:
                os.write(write_end, b"x" * 4096)
        os.set_blocking(write_end, True)
        with subprocess.Popen(
            [sys.executable, "-m", "olla", *arguments],
            stdout=write_end,
            env=environment(tmp_path),
            cwd=tmp_path,
        ) as process:
            os.close(write_end)
            try:
                for _ in range(200):
                    with suppress(ConnectionRefusedError):
                        ask(free_port)
                        break
                    time.sleep(0.1)  # the blocked pipe cannot report the start
                assert get(free_port, "/internal/health")
                assert stop(process) == 0
            finally:
                process.kill()
                os.close(read_end)


@pytest.mark.timeout(90)
def test_a_log_reader_that_exits_costs_lines_only(
    configure: Callable[..., str], tmp_path: Path
) -> None:
    """The pipe's reading end is closed, as by `olla serve | head -1`."""
    with started("serve", "--config", configure(), cwd=tmp_path) as (process, reader):
        port = listening(reader)
        os.close(reader.descriptor)
        ask(port, 3)
        while not dropped(port, "requests"):
            ask(port)
        assert stop(process) == 0


@pytest.mark.timeout(90)
def test_a_full_disk_under_the_decision_log_is_logged_once(
    configure: Callable[..., str], tmp_path: Path
) -> None:
    """The decision log loses its lines, which are counted; the router exits with status 0 and no
    traceback."""
    config = configure("routing: {decision_log: /dev/full}\n")
    with started("serve", "--config", config, cwd=tmp_path) as (process, reader):
        port = listening(reader)
        while dropped(port, "decisions") < 10:
            ask(port)
        process.send_signal(signal.SIGTERM)
        text = reader.rest()
        assert process.wait(STOPS_SECONDS_MAX) == 0
    lines = [json.loads(line) for line in text.splitlines()]
    warned = [line for line in lines if line.get("level") in ("warning", "error")]
    assert [line["message"] for line in warned] == ["decision log cannot be written"]
    assert "No space left" in warned[0]["error"]
    assert lines[-1]["message"] == "stopped"


@pytest.mark.timeout(90)
def test_an_unread_decision_log_does_not_block(
    configure: Callable[..., str], tmp_path: Path
) -> None:
    """The log is a FIFO that is opened without a reader and fills up later. Its reader gets
    complete lines."""
    fifo = tmp_path / "decisions"
    os.mkfifo(fifo)
    config = configure(f"routing: {{decision_log: {fifo}}}\n")
    with started("serve", "--config", config, cwd=tmp_path) as (process, reader):
        port = listening(reader)
        ask(port, 20)
        end = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        os.set_blocking(end, True)
        decisions = Reader(end)
        assert json.loads(decisions.until('"request"'))["model"]
        ask(port, 20)
        process.send_signal(signal.SIGTERM)
        decisions.rest()
        assert process.wait(STOPS_SECONDS_MAX) == 0
        os.close(end)
        reader.rest()
    lines = [json.loads(line) for line in decisions.text.splitlines()]
    assert sum(line["kind"] == "request" for line in lines) == 40
