"""An Ollama server that answers inference requests with the bytes a test gives it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from olla.app import App
from olla.settings import parse
from tests.routers import settings_text

__all__ = ["MODEL", "ScriptedOllama", "over", "scripted"]

MODEL = "smollm:latest"
_LISTS = {
    "/": "Ollama is running",
    "/api/version": {"version": "0.12.0"},
    "/api/ps": {"models": []},
    "/api/tags": {"models": [{"name": MODEL, "model": MODEL, "size": 990_000_000, "digest": "0"}]},
}

_INFERENCE = ("/api/generate", "/v1/completions", "/v1/chat/completions")

Script = Callable[[asyncio.StreamWriter], Awaitable[None]]


class ScriptedOllama:
    """One node; `script` writes an answer, after which its connection is closed."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.asked: list[dict[str, object]] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = head.partition("content-length: ")[2].partition("\r\n")[0]
            body = await reader.readexactly(int(length or 0))
            path = head.split()[1]
            asked = json.loads(body) if path in _INFERENCE else {}
            if asked.get("prompt") or asked.get("messages"):
                self.asked.append(asked)
                await self.script(writer)
            else:
                known = _LISTS.get(path, {"model": MODEL, "response": "", "done": True})
                text = known if isinstance(known, str) else json.dumps(known)
                writer.write(over(200, text))
            await writer.drain()
        writer.close()


def over(status: int, text: str, type: str = "application/json") -> bytes:
    """A whole answer."""
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {type}\r\nContent-Length: {len(text)}"
    return f"{head}\r\nConnection: close\r\n\r\n{text}".encode()


@asynccontextmanager
async def scripted(
    script: Script, extra: str = "", server: str = ""
) -> AsyncIterator[tuple[App, ScriptedOllama]]:
    """A router over such a node; `extra` and `server`: see `settings_text`."""
    node = ScriptedOllama(script)
    listener = await asyncio.start_server(node.serve, "127.0.0.1", 0)
    node.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    app = App(parse(settings_text({"only": node.url}, extra, server), {}))
    await app.start()
    await app.prober.first_pass()
    try:
        yield app, node
    finally:
        await app.stop()
        listener.close()
        await listener.wait_closed()
