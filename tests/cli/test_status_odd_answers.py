"""Tests of `olla status` with malformed responses."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from click.testing import Result

Invoke = Callable[..., Result]


def status_with(**changed: object) -> bytes:
    """Return a router's response about one endpoint."""
    endpoint = {
        "name": "gpu-1",
        "type": "ollama",
        "status": "healthy",
        "routable": True,
        "in_flight": 0,
        "models": 1,
        "resident": [],
        "reason": None,
    }
    return json.dumps(
        {
            "version": "1",
            "status": "healthy",
            "policy": "loaded-first",
            "requests": {"total": 0, "failures": 0, "in_flight": 0},
            "endpoints": [endpoint | changed],
        }
    ).encode()


@pytest.fixture
def answering() -> Iterator[Callable[[bytes], str]]:
    """Return a function that sets the body of a server and returns its URL."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(bodies[-1])))
            self.end_headers()
            self.wfile.write(bodies[-1])

        def log_message(self, *_: Any) -> None:
            """Do not log requests."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def answer(body: bytes) -> str:
        bodies.append(body)
        return f"http://127.0.0.1:{server.server_port}"

    yield answer
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("changed", "shown"),
    [
        ({"resident": [{"name": "\x1b]0;title\x07m"}]}, r"\x1b]0;title\x07m"),
        ({"reason": "a\x1b[2Jb"}, r"a\x1b[2Jb"),
        ({"name": "a\nb"}, r"a\nb"),
        ({"name": "a\ud800b"}, r"a\ud800b"),
        ({"name": "a\u202eb"}, r"a\u202eb"),
    ],
)
def test_text_of_endpoints_cannot_control_a_terminal(
    changed: dict[str, object],
    shown: str,
    invoke: Invoke,
    answering: Callable[[bytes], str],
) -> None:
    """Names of models come from the endpoints, so control characters are escaped."""
    result = invoke("status", "--url", answering(status_with(**changed)))
    assert result.exit_code == 0
    assert shown in result.stdout
    assert len(result.stdout.splitlines()) == 3
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 200_000,
        status_with().decode().encode("utf-16"),
        status_with(resident=None),
        status_with(resident=[1]),
        b'"text"',
    ],
    ids=["too deep", "utf-16", "no list", "no names", "text"],
)
@pytest.mark.parametrize("options", [[], ["--json"]], ids=["table", "json"])
def test_a_malformed_response_is_reported(
    options: list[str], body: bytes, invoke: Invoke, answering: Callable[[bytes], str]
) -> None:
    """On one line with exit status 1, without a traceback."""
    result = invoke("status", *options, "--url", answering(body))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "is not an olla router" in result.stderr
    assert len(result.stderr.splitlines()) == 1
