"""Tests of `olla serve` as a process: it listens, relays, drains on SIGTERM, and reports errors."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from olla.app import StartError
from olla.settings import LoadedSettings, Problem, SettingsError
from tests.routers import ThreadedFleet, settings_text, threaded_fleet

MODEL = "llama3.2:latest"
Invoke = Callable[..., Result]
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("OLLA_")}


@pytest.fixture(scope="module")
def fleet() -> Iterator[ThreadedFleet]:
    """Run a node for the router."""
    with threaded_fleet({"a": (MODEL,)}, time_scale=0.02) as running:
        yield running


def command(*arguments: str) -> list[str]:
    """Return the command line."""
    return [sys.executable, "-m", "olla", *arguments]


@contextmanager
def served(config: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run `olla serve`, and yield the process and its port."""
    with subprocess.Popen(
        command("serve", "--config", str(config), "--log-level", "info"),
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                event = json.loads(line)
                if event["message"] == "listening":
                    yield process, int(event["url"].rsplit(":", 1)[1])
                    break
            else:
                pytest.fail("the router did not listen")
        finally:
            process.kill()


@pytest.fixture
def config(fleet: ThreadedFleet, tmp_path: Path) -> Path:
    """Write a configuration for the node."""
    path = tmp_path / "olla.yaml"
    path.write_text(settings_text({"a": fleet.fleet.nodes["a"].url}))
    return path


def test_a_drained_router_exits_with_zero(config: Path) -> None:
    """A stream in flight at SIGTERM is finished."""
    with served(config) as (process, port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        body = {"model": MODEL, "prompt": "a story", "options": {"num_predict": 30}}
        connection.request("POST", "/api/generate", json.dumps(body))
        response = connection.getresponse()
        assert response.status == 200
        first = response.readline()
        process.send_signal(signal.SIGTERM)
        lines = [first, *response.readlines()]
        assert json.loads(lines[-1])["done"] is True
        connection.close()
        assert process.wait(10) == 0


def test_a_port_in_use_exits_with_one_and_the_reason(config: Path) -> None:
    """On one line, without a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ran = subprocess.run(
            command("serve", "--config", str(config), "--port", port),
            capture_output=True,
            text=True,
            timeout=15,
            env=ENVIRONMENT,
        )
    assert ran.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_an_invalid_file_exits_with_two_and_every_problem(tmp_path: Path) -> None:
    """With line, key and the nearest known key."""
    path = tmp_path / "bad.yaml"
    path.write_text("server:\n  prot: 1\nproxy:\n  load_balancer: best\n")
    ran = subprocess.run(
        command("serve", "--config", str(path)),
        capture_output=True,
        text=True,
        timeout=15,
        env=ENVIRONMENT,
    )
    assert ran.returncode == 2
    assert f"{path}:2:3: server.prot: unknown key; did you mean port?" in ran.stderr
    assert f"{path}:4:3: proxy.load_balancer" in ran.stderr


def test_the_demo_answers(tmp_path: Path) -> None:
    """`olla demo` needs no other server, and shows commands to try."""
    with subprocess.Popen(
        command("demo", "--port", "0", "--time-scale", "0.01"),
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        cwd=tmp_path,
    ) as process:
        try:
            assert process.stdout is not None
            line = next(line for line in process.stdout if "olla is at http://" in line)
            port = int(line.split("http://127.0.0.1:")[1].split(",")[0])
            for path, body in (
                ("/olla/ollama/api/generate", {"model": "llama3.2", "prompt": "x"}),
                ("/v1/chat/completions", {"model": "mistral", "messages": [{"content": "x"}]}),
            ):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                connection.request("POST", path, json.dumps({**body, "stream": False}))
                assert connection.getresponse().status == 200
                connection.close()
            process.send_signal(signal.SIGINT)
            process.stdout.read()
            assert process.wait(10) == 0
        finally:
            process.kill()


def test_sighup_reloads_the_file(fleet: ThreadedFleet, tmp_path: Path) -> None:
    """The process continues, even if the file is invalid."""
    config = tmp_path / "olla.yaml"
    config.write_text(settings_text({"a": fleet.fleet.nodes["a"].url}))
    with served(config) as (process, port):
        assert process.stdout is not None
        for text, message in (
            (settings_text({"renamed": fleet.fleet.nodes["a"].url}), "settings loaded"),
            ("server: {port: none}", "settings not loaded"),
        ):
            config.write_text(text)
            process.send_signal(signal.SIGHUP)
            assert any(json.loads(line)["message"] == message for line in process.stdout)
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/internal/status/endpoints")
        status = json.loads(connection.getresponse().read())
        connection.close()
        assert "renamed" in str(status)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_a_second_signal_ends_the_process_immediately(fleet: ThreadedFleet, tmp_path: Path) -> None:
    """It does not wait for streams."""
    config = tmp_path / "olla.yaml"
    text = settings_text({"a": fleet.fleet.nodes["a"].url})
    config.write_text(text.replace("shutdown_timeout: 1s", "shutdown_timeout: 60s"))
    fleet.fleet.nodes["a"].faults.set("hang")
    with served(config) as (process, port), socket.create_connection(("127.0.0.1", port)) as client:
        assert process.stdout is not None
        body = b'{"model": "llama3.2", "prompt": "x", "stream": false}'
        head = b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
        client.sendall(head % len(body) + body)
        connection = http.client.HTTPConnection("127.0.0.1", port)
        while True:
            connection.request("GET", "/metrics")
            metrics = connection.getresponse().read()
            names = (b"_progress", b"_flight")
            if any(b'%b{endpoint="a"} 1.0' % name in metrics for name in names):
                break
        connection.close()
        process.send_signal(signal.SIGTERM)
        assert any(json.loads(line)["message"] == "draining" for line in process.stdout)
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == -signal.SIGTERM
    fleet.fleet.nodes["a"].faults.clear()


@pytest.fixture
def wired(monkeypatch: pytest.MonkeyPatch) -> list[LoadedSettings]:
    """Return the settings that the router would have been started with."""
    started: list[LoadedSettings] = []

    async def serve(loaded: LoadedSettings, **_: Any) -> None:
        started.append(loaded)

    monkeypatch.setattr("olla.app.serve", serve)
    return started


def test_options_override_variables_and_variables_override_the_file(
    invoke: Invoke, wired: list[LoadedSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source closest to the command takes precedence."""
    (tmp_path / "f.yaml").write_text("server: {host: a, port: 1}\nlogging: {level: error}")
    monkeypatch.setenv("OLLA_SERVER_PORT", "2")
    monkeypatch.setenv("OLLA_SERVER_HOST", "b")
    assert invoke("serve", "-c", "f.yaml", "--port", "3", "--log-level", "debug").exit_code == 0
    settings = wired[0].settings
    assert (settings.server.host, settings.server.port) == ("b", 3)
    assert settings.logging.level == "debug"
    assert wired[0].source == "f.yaml"


def test_a_router_that_cannot_start_reports_the_reason(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On one line with exit status 1, without a traceback."""

    async def serve(loaded: LoadedSettings, **_: Any) -> None:
        raise StartError("cannot listen on localhost:1: because")

    monkeypatch.setattr("olla.app.serve", serve)
    result = invoke("serve")
    assert result.exit_code == 1
    assert result.stderr == "olla: cannot listen on localhost:1: because\n"


def test_settings_that_are_invalid_at_startup_are_listed(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example, a secret file may have been deleted in the meantime."""

    async def serve(loaded: LoadedSettings, **_: Any) -> None:
        raise SettingsError([Problem("gpu-1", 0, 0, "auth", "gone")])

    monkeypatch.setattr("olla.app.serve", serve)
    result = invoke("serve")
    assert result.exit_code == 2
    assert result.stderr == "gpu-1: auth: gone\n1 problem found\n"
