"""`olla status`: what is shown, and what is said when nothing sensible answers."""

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


class _Answering(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, body = self.server.answer  # type: ignore[attr-defined]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def answering() -> Iterator[Callable[[int, bytes], str]]:
    """A server that answers everything with one status and body; its address."""
    server = HTTPServer(("127.0.0.1", 0), _Answering)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def answer(status: int, body: bytes) -> str:
        server.answer = (status, body)  # type: ignore[attr-defined]
        return f"http://127.0.0.1:{server.server_port}"

    yield answer
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_router_that_requires_keys_is_asked_with_one(invoke: Invoke) -> None:
    """By the option or the variable; without one, the error says how to give it."""
    extra = "access: {require_key: true, keys: [{name: ci, key: key-of-the-ci}]}\n"
    with threaded_fleet({"only": ("llama3.2:latest",)}, extra) as fleet:
        refused = invoke("status", "--url", fleet.url)
        assert refused.exit_code == 1
        assert "OLLA_KEY" in refused.stderr
        assert invoke("status", "--url", fleet.url, "--key", "other-key").exit_code == 1
        assert "healthy" in invoke("status", "--url", fleet.url, "--key", "key-of-the-ci").stdout
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("OLLA_KEY", "key-of-the-ci")
            assert "healthy" in invoke("status", "--url", fleet.url).stdout


def test_a_key_that_no_header_can_have_is_not_repeated(invoke: Invoke) -> None:
    """A key with a line break is refused before it is sent."""
    result = invoke("status", "--key", "secret\nkey")
    assert result.exit_code == 2
    assert "secret" not in result.output


def test_the_fleet_is_a_table(invoke: Invoke, answering: Callable[[int, bytes], str]) -> None:
    """A line an endpoint, whole even where there is no terminal, and nothing read as markup."""
    told = invoke("status", "--url", answering(200, json.dumps(STATUS).encode()) + "/")
    heading, columns, first, second = (line.strip() for line in told.stdout.splitlines())
    assert told.exit_code == 0
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


def test_json_is_passed_on_unchanged(
    invoke: Invoke, answering: Callable[[int, bytes], str]
) -> None:
    """For programs."""
    body = json.dumps(STATUS, indent=3)
    told = invoke("status", "--json", "--url", answering(200, body.encode()))
    assert told.stdout == body + "\n"


def test_nothing_that_answers_is_said(invoke: Invoke, free_port: int) -> None:
    """With the address and what to look at, exit status 1."""
    told = invoke("status", "--url", f"http://127.0.0.1:{free_port}")
    assert (told.exit_code, told.stdout) == (1, "")
    assert told.stderr.startswith(
        f"olla: no router answers at http://127.0.0.1:{free_port}/internal/status: "
    )
    assert "is it running" in told.stderr


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (404, b"not found", "answers 404 Not Found; is it an olla router?"),
        (502, b"", "answers 502 Bad Gateway; is it an olla router?"),
        (200, b"Ollama is running", "is no olla router"),
        (200, b"[]", "is no olla router"),
        (200, b'{"endpoints": []}', "is no olla router"),
        (200, b"\xff", "is no olla router"),
    ],
)
def test_something_else_that_answers_is_said(
    status: int,
    body: bytes,
    message: str,
    invoke: Invoke,
    answering: Callable[[int, bytes], str],
) -> None:
    """An Ollama, a web page, another version: no traceback, exit status 1."""
    told = invoke("status", "--url", answering(status, body))
    assert (told.exit_code, told.stdout) == (1, "")
    assert message in told.stderr


@pytest.mark.parametrize("url", ["http://[::1", "http://a b"])
def test_an_address_that_is_none_is_said(url: str, invoke: Invoke) -> None:
    """No traceback."""
    told = invoke("status", "--url", url)
    assert told.exit_code == 1
    assert told.stderr.startswith("olla: ")


def test_the_key_does_not_follow_a_redirect(invoke: Invoke) -> None:
    """A redirect is an error that names the other address, which is never asked."""
    asked: list[str | None] = []

    class Redirecting(_Answering):
        def do_GET(self) -> None:
            asked.append(self.headers.get("Host"))
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
    assert "give that address as --url" in shown.output
    assert asked == [address.removeprefix("http://")]
