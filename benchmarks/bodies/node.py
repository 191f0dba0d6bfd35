"""A node that accepts any body, discards it, and answers at once."""

import asyncio
import re
import ssl
import sys

from benchmarks.proxy.backend import Answers

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


class Node(asyncio.Protocol):
    """One connection."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._head = b""
        self._missing = 0
        self._answer = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport):
        self._transport = transport

    def data_received(self, data):
        while data:
            if not self._answer:
                self._head += data
                end = self._head.find(b"\r\n\r\n")
                if end < 0:
                    return
                data, head = self._head[end + 4 :], self._head[: end + 2]
                self._head = b""
                match = _LENGTH.search(head)
                self._missing = int(match[1]) if match is not None else 0
                self._answer = self._answer_to(head)
            taken = min(self._missing, len(data))
            self._missing -= taken
            data = data[taken:]
            if self._missing:
                return
            self._transport.write(self._answer)
            self._answer = b""

    def _answer_to(self, head: bytes) -> bytes:
        method, path, _ = head.split(b" ", 2)
        if method != b"POST":
            return self._answers.lists.get(path, self._answers.alive)
        return self._answers.native if path.startswith(b"/api/") else self._answers.openai


async def _main(port: int, certificate: str | None) -> None:
    answers, context = Answers(), None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    loop = asyncio.get_running_loop()
    await loop.create_server(lambda: Node(answers), "127.0.0.1", port, ssl=context)
    while True:
        await asyncio.sleep(0.25)
        answers.renew()


if __name__ == "__main__":
    import uvloop

    uvloop.run(_main(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None))
