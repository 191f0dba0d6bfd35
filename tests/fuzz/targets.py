"""What is fuzzed: each target takes arbitrary bytes, reads them as olla does and as a reference
parser does, and raises AssertionError where the two disagree.

Olla may refuse what the reference takes, because it is strict on purpose; what it takes, it must
read as the reference does. Anything else that is raised is a crash.
"""

import asyncio
import contextlib
import itertools
import json
from collections.abc import Callable

import h11
import yaml
from aiohttp import http_exceptions
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_parser import HttpRequestParser

from olla.dialects import json_scan
from olla.dialects.dialect import Dialect, Operation, Peek
from olla.dialects.ollama import Ollama
from olla.dialects.openai import OpenAI
from olla.dialects.paths import Paths, ScopeSpec
from olla.dialects.peek import scan_body
from olla.dialects.top_level import NotAnObject
from olla.failures import Failed, Failure
from olla.fleet.profiles import PROFILES
from olla.proxy.http.framing import Chunked, FramingError
from olla.proxy.http.response_head import BadHead, parse_head
from olla.proxy.server.hot_head import HotHeads
from olla.settings import SettingsError, parse
from olla.settings.document import read_document

__all__ = ["TARGETS"]

_PATHS = Paths(
    [ScopeSpec(row.name, row.prefixes, row.dialects) for row in PROFILES.values()],
    root_enabled=True,
)
_DIALECTS = (
    (Ollama(), Operation.CHAT),
    (Ollama(), Operation.PULL),
    (OpenAI(), Operation.CHAT),
)
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BEYOND_THE_REFERENCE = ("<<", "&", "*", "${", "!", "?")
"""Merging, aliases, variables, tags, complex keys: read otherwise on purpose."""


def head(data: bytes) -> None:
    """The head of an endpoint's answer, against h11."""
    try:
        ours = parse_head(data, "GET")
    except BadHead:
        return
    reference = h11.Connection(our_role=h11.CLIENT)
    reference.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    reference.receive_data(data + b"\r\n\r\n")
    refused = ""
    event: object = None
    try:
        event = reference.next_event()
    except h11.RemoteProtocolError as error:
        refused = str(error)
    if refused:
        # h11 takes no answer whose reason or value has bytes that HTTP allows as obs-text.
        assert not data.isascii() or _is_stricter(refused, data), (refused, data)
        return
    assert isinstance(event, h11.Response | h11.InformationalResponse), data
    assert event.status_code == ours.status
    fields = {bytes(name): bytes(value) for name, value in reversed([*event.headers])}
    for name in (b"content-type", b"location", b"retry-after"):
        assert (ours.get(name) or b"").strip() == fields.get(name, b"").strip()
    if isinstance(event, h11.Response) and not ours.bodiless:
        assert ours.chunked == (b"chunked" in fields.get(b"transfer-encoding", b"").lower())
        if not ours.chunked:
            length = fields.get(b"content-length")
            assert ours.length == (None if length is None else int(length))


def _is_stricter(refused: str, data: bytes) -> bool:
    """Where h11 refuses what RFC 9112 lets an answer have, or what olla refuses one step later."""
    first = data.split(b"\r\n", 1)[0]
    if "_SWITCH_UPGRADE" in refused:
        return True
    return "illegal status line" in refused and b"\t" in first


def request(data: bytes) -> None:
    """The head of a request on the fast path, against aiohttp's parser."""
    found = HotHeads(_PATHS).find(data)
    if found is None:
        return
    ours, body_at, length = found
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        parser = HttpRequestParser(
            BaseProtocol(loop), loop, 1 << 20, max_line_size=1 << 20, max_field_size=1 << 20
        )
        try:
            messages, upgraded, _ = parser.feed_data(data[:body_at])
        except http_exceptions.HttpProcessingError as error:
            raise AssertionError(f"aiohttp refuses {data!r}: {error}") from error
    assert not upgraded
    ((message, payload),) = messages
    assert (message.method, message.path) == ("POST", ours.uri)
    assert tuple(message.version) == (1, 1)
    assert not message.chunked
    assert message.should_close == ours.closes
    stripped = tuple((name, value.strip(b" \t")) for name, value in message.raw_headers)
    assert stripped == ours.headers
    assert int(message.headers["Content-Length"]) == length
    assert payload.is_eof() == (length == 0)


def chunks(data: bytes) -> None:
    """A chunked body, cut where its first bytes say, against aiohttp's parser and itself."""
    cuts, data = data[:4], data[4:]
    read: list[tuple[bytes, bool, bytes] | None] = []
    for places in ((), tuple(cut % (len(data) + 1) for cut in cuts)):
        scanner, payload = Chunked(), []
        edges = sorted({0, len(data), *places})
        try:
            for start, end in itertools.pairwise(edges):
                if scanner.done:
                    scanner.leftover += data[start:end]
                else:
                    scanner.feed(data[start:end], payload)
        except FramingError:
            read.append(None)
        else:
            read.append((b"".join(payload), scanner.done, scanner.leftover))
    assert read[0] == read[1] or None in read, "cuts change what is read"
    assert not (read[0] and read[0][1]) or read[1] == read[0], "cuts change a whole body"
    if read[0] is None or not read[0][1]:
        return
    body, _, leftover = read[0]
    wire = data[: len(data) - len(leftover)]
    reference = h11.Connection(our_role=h11.SERVER)
    reference.receive_data(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    reference.next_event()
    reference.receive_data(wire)
    taken = b""
    try:
        while isinstance(event := reference.next_event(), h11.Data):
            taken += bytes(event.data)
    except h11.RemoteProtocolError:
        return  # its trailers, which are dropped where they are not plain
    assert isinstance(event, h11.EndOfMessage), wire
    assert taken == body


def peek(data: bytes) -> None:
    """`model` and `stream` of a body, against Python's own JSON; and read in steps as at once."""
    for dialect, operation in _DIALECTS:
        ours = _peeked(dialect, operation, data, in_steps=False)
        assert _peeked(dialect, operation, data, in_steps=True) == ours
        if isinstance(ours, Peek):
            _compare_peek(ours, json.loads(data), operation)


def _peeked(
    dialect: Dialect, operation: Operation, data: bytes, *, in_steps: bool
) -> Peek | Failure:
    try:
        scanned = json_scan.finished(scan_body(data)) if in_steps else None
        return dialect.peek(operation, data, scanned)
    except Failed as failed:
        return failed.failure


_NARROW = {"_WINDOW": 64, "_SLICE": 32, "_BLOCK": 16}


def scan(data: bytes) -> None:
    """The members of a long body, in steps of a few bytes, against Python's own JSON."""
    wide = {name: getattr(json_scan, name) for name in _NARROW}
    try:
        for name, size in _NARROW.items():
            setattr(json_scan, name, size)
        steps = json_scan.scan_object(data, json_scan.ScanLimits(whole=0))
        members = json_scan.finished(steps).members
    except NotAnObject:
        return
    finally:
        for name, size in wide.items():
            setattr(json_scan, name, size)
    read = [
        (name, json.loads(data[start:end], object_pairs_hook=list)) for name, start, end in members
    ]
    reference = json.loads(data, object_pairs_hook=list)
    assert [value for _, value in read] == [value for _, value in reference]
    for (ours, _), (name, _) in zip(read, reference, strict=True):
        assert ours == name or not name.isascii()  # half a surrogate pair


def _compare_peek(ours: Peek, answer: object, operation: Operation) -> None:
    assert isinstance(answer, dict)
    keys = ("model", "name") if operation is Operation.PULL else ("model",)
    named = [answer[key] for key in keys if answer.get(key)]
    model = named[0] if named else None
    if isinstance(model, str) and not model.isascii():
        model = model.encode("utf-8", "replace").decode()  # half a surrogate pair
        assert ours.model is not None
        assert ours.model.replace("\ufffd", "?") == model.replace("\ufffd", "?")
    else:
        assert ours.model == (model or None)
    assert sum(key.casefold() == "model" for key in answer) <= 1
    stream = answer.get("stream")
    if stream is not None:
        assert ours.stream is stream


def settings(data: bytes) -> None:
    """A configuration: nothing but its own error; where plain, against PyYAML's own loader."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    try:
        ours = read_document(text, {}, "fuzz")
    except SettingsError:
        return
    with contextlib.suppress(SettingsError):
        parse(text, {})
    if ours.problems or any(mark in text for mark in _BEYOND_THE_REFERENCE):
        return
    reference = yaml.load(text, yaml.BaseLoader)
    assert _plain(ours.data) == (_plain(reference) or {})


def _plain(value: object) -> object:
    """As olla reads it: what says nothing is None."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return None if value in _NULLS else value


TARGETS: dict[str, Callable[[bytes], None]] = {
    "head": head,
    "request": request,
    "chunks": chunks,
    "peek": peek,
    "scan": scan,
    "settings": settings,
}
"""By name."""
