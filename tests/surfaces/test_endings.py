"""How the streams of olla's own surfaces end when they break: as relayed ones do."""

import json
from pathlib import Path

import pytest

from olla.proxy.internal.subrequest import SubrequestResponse
from olla.simulation.faults import Fault
from tests.routers import Fleet
from tests.wire.conftest import ended

MODEL = "llama3.2:latest"
ASKED = ("/api/generate", "/v1/chat/completions")
STREAMS = {
    "/chat/stream": {"message": "hi", "model": MODEL},
    "/olla/management/chat": {
        "model": MODEL,
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
    },
}


LOAD = b'{"model":"%b","options":{"num_predict":1}}' % MODEL.encode()
LOAD = b"POST /api/generate HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (len(LOAD), LOAD)
"""A request that loads the model and says next to nothing."""


def request(path: str, version: str) -> bytes:
    """A request for a stream."""
    body = json.dumps(STREAMS[path]).encode()
    head = f"POST {path} HTTP/{version}\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + body


def store(folder: Path) -> str:
    """Of its own."""
    return f"store: {{url: 'sqlite:///{folder}/keys.db'}}\n"


def port_of(fleet: Fleet) -> int:
    """The router's port."""
    return int(fleet.url.rsplit(":")[-1])


@pytest.mark.parametrize("path", list(STREAMS))
async def test_a_whole_stream_ends_with_an_end(tmp_path: Path, path: str) -> None:
    """To any client."""
    async with Fleet({"only": (MODEL,)}, store(tmp_path)) as fleet:
        for version in ("1.0", "1.1"):
            raw, clean = await ended(port_of(fleet), request(path, version))
            assert clean
            assert raw.startswith(f"HTTP/{version} 200 ".encode())
            assert raw.endswith(b"0\r\n\r\n") is (version == "1.1")
            assert b"error" not in raw


@pytest.mark.parametrize("fault", ["reset_mid", "end_early", "bad_framing"])
@pytest.mark.parametrize("path", list(STREAMS))
async def test_a_broken_stream_to_http_1_0_ends_with_a_reset(
    tmp_path: Path, path: str, fault: str
) -> None:
    """After the error; to HTTP/1.1 the last chunk is missing."""
    slowly = {"time_scale": 2.0, "load_bandwidth": 1e12}
    async with Fleet({"only": (MODEL,)}, store(tmp_path), **slowly) as fleet:
        await ended(port_of(fleet), LOAD)
        fleet.nodes["only"].faults.set(fault, Fault(paths=ASKED, after=3))
        for version in ("1.0", "1.1"):
            raw, clean = await ended(port_of(fleet), request(path, version))
            assert raw.startswith(f"HTTP/{version} 200 ".encode())
            assert b'"error":' in raw
            assert clean is (version == "1.1")
            assert not raw.endswith(b"0\r\n\r\n")
        await fleet.check_clean()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_an_error_of_the_routers_own_in_mid_stream_writes_no_second_head(
    tmp_path: Path, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could only come out within the first one's body; the end tells, and the log why."""

    async def failing(self: SubrequestResponse) -> object:
        yield b'{"model":"x","response":"Hel","done":false}'
        raise RuntimeError("out of order")

    monkeypatch.setattr(SubrequestResponse, "lines", failing)
    async with Fleet({"only": (MODEL,)}, store(tmp_path)) as fleet:
        raw, clean = await ended(port_of(fleet), request("/chat/stream", version))
        assert raw.count(b"HTTP/1.") == 1
        assert b"Hel" in raw
        assert clean is (version == "1.1")
        assert not raw.endswith(b"0\r\n\r\n")
        assert "out of order" in fleet.log.getvalue()
