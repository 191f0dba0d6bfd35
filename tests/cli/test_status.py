"""Tests of `olla status`: its table, and its errors."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from click.testing import Result

from tests.routers import threaded_fleet

Invoke = Callable[..., Result]

ENDPOINT = {
    "name": "gpu-1",
    "type": "ollama",
    "status": "healthy",
    "routable": True,
    "in_flight": 2,
    "models": 7,
    "resident": [{"name": "llama3.2:latest"}, {"name": "mistral:latest"}],
    "reason": None,
}
STATUS = {
    "version": "1.2.3",
    "status": "healthy",
    "policy": "loaded-first",
    "requests": {"total": 10, "failures": 1, "in_flight": 2},
    "endpoints": [
        ENDPOINT,
        {
            **ENDPOINT,
            "name": "[red]gpu-2[/red]",
            "status": "offline",
            "routable": False,
            "resident": [],
            "reason": "does not answer ([Errno 111] Connection refused)",
        },
    ],
}


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, body = self.server.answer  # type: ignore[attr-defined]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Do not log requests."""


@pytest.fixture
def answering() -> Iterator[Callable[[int, bytes], str]]:
    """Return a function that sets the response of a server and returns its URL."""
    server = HTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def answer(status: int, body: bytes) -> str:
        server.answer = (status, body)  # type: ignore[attr-defined]
        return f"http://127.0.0.1:{server.server_port}"

    yield answer
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_key_is_sent_to_a_router_that_requires_keys(invoke: Invoke) -> None:
    """From the option or the variable; without a key, the error says how to give one."""
    extra = "access: {require_key: true, keys: [{name: ci, key: key-of-the-ci}]}\n"
    with threaded_fleet({"only": ("llama3.2:latest",)}, extra) as fleet:
        rejected = invoke("status", "--url", fleet.url)
        assert rejected.exit_code == 1
        assert "OLLA_KEY" in rejected.stderr
        assert invoke("status", "--url", fleet.url, "--key", "other-key").exit_code == 1
        assert "healthy" in invoke("status", "--url", fleet.url, "--key", "key-of-the-ci").stdout
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("OLLA_KEY", "key-of-the-ci")
            assert "healthy" in invoke("status", "--url", fleet.url).stdout


def test_an_invalid_key_is_rejected_and_not_repeated(invoke: Invoke) -> None:
    """A key with a line break is rejected before it is sent."""
    result = invoke("status", "--key", "secret\nkey")
    assert result.exit_code == 2
    assert "secret" not in result.output


def test_the_fleet_is_shown_as_a_table(
    invoke: Invoke, answering: Callable[[int, bytes], str]
) -> None:
    """One line per endpoint, not cut without a terminal, and without markup."""
    result = invoke("status", "--url", answering(200, json.dumps(STATUS).encode()) + "/")
    heading, columns, first, second = (line.strip() for line in result.stdout.splitlines())
    assert result.exit_code == 0
    assert heading == (
        "olla 1.2.3, healthy, policy loaded-first, 10 requests, 1 failures, 2 in flight"
    )
    assert columns.split() == (
        ["endpoint", "type", "status", "in", "flight", "models", "in", "memory", "remark"]
    )
    assert first.split()[:3] == ["gpu-1", "ollama", "healthy"]
    assert "llama3.2:latest, mistral:latest" in first
    assert second.split()[:3] == ["[red]gpu-2[/red]", "ollama", "offline"]
    assert second.endswith("does not answer ([Errno 111] Connection refused)")


def test_json_is_printed_unchanged(invoke: Invoke, answering: Callable[[int, bytes], str]) -> None:
    """For programs."""
    body = json.dumps(STATUS, indent=3)
    result = invoke("status", "--json", "--url", answering(200, body.encode()))
    assert result.stdout == body + "\n"


def test_an_unreachable_router_is_reported(invoke: Invoke, free_port: int) -> None:
    """With the address and a hint, and exit status 1."""
    result = invoke("status", "--url", f"http://127.0.0.1:{free_port}")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(
        f"olla: cannot reach a router at http://127.0.0.1:{free_port}/internal/status: "
    )
    assert "is it running" in result.stderr


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (404, b"not found", "returned 404 Not Found; is it an olla router?"),
        (502, b"", "returned 502 Bad Gateway; is it an olla router?"),
        (200, b"Ollama is running", "is not an olla router"),
        (200, b"[]", "is not an olla router"),
        (200, b'{"endpoints": []}', "is not an olla router"),
        (200, b"\xff", "is not an olla router"),
    ],
)
def test_another_server_is_reported(
    status: int,
    body: bytes,
    message: str,
    invoke: Invoke,
    answering: Callable[[int, bytes], str],
) -> None:
    """An Ollama, a web page, another version: no traceback, exit status 1."""
    result = invoke("status", "--url", answering(status, body))
    assert (result.exit_code, result.stdout) == (1, "")
    assert message in result.stderr


@pytest.mark.parametrize("url", ["http://[::1", "http://a b"])
def test_an_invalid_address_is_reported(url: str, invoke: Invoke) -> None:
    """It does not cause a traceback."""
    result = invoke("status", "--url", url)
    assert result.exit_code == 1
    assert result.stderr.startswith("olla: ")


def test_the_key_is_not_sent_to_the_target_of_a_redirect(invoke: Invoke) -> None:
    """A redirect is an error that names the target, which gets no request."""
    requested_hosts: list[str | None] = []

    class Redirecting(_Handler):
        def do_GET(self) -> None:
            requested_hosts.append(self.headers.get("Host"))
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{self.server.server_address[1]}/x")
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = HTTPServer(("127.0.0.1", 0), Redirecting)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        address = f"http://127.0.0.1:{server.server_address[1]}"
        shown = invoke("status", "--url", address, "--key", "a-key-of-sixteen")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert shown.exit_code == 1
    assert "use that address as --url" in shown.output
    assert requested_hosts == [address.removeprefix("http://")]
