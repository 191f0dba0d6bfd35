"""Bodies that are expensive to parse; a client could send any of them, at any size.

Most are valid JSON and harmless to a parser in C. Each shape targets one step of a parser: strings,
escapes, containers, keys, numbers, whitespace, forms, and the parts of a request that a router
decodes.
"""

from collections.abc import Callable

import msgspec

__all__ = ["SHAPES", "Shape"]

JSON = "application/json"
_GENERATE = "/api/generate"
_CHAT = "/v1/chat/completions"
_BOUNDARY = "b" * 66
_FORM = f"multipart/form-data; boundary={_BOUNDARY}"


class Shape(msgspec.Struct, frozen=True):
    """A body. `make` takes its approximate size in bytes; `sizes` are megabytes.

    `chunked` sends it without a length. With `tls` the router connects to the endpoint over TLS.
    """

    name: str
    path: str
    make: Callable[[int], bytes]
    sizes: tuple[int, ...] = (10,)
    content_type: str = JSON
    chunked: bool = False
    tls: bool = False


def filled(start: bytes, filling: bytes, end: bytes) -> Callable[[int], bytes]:
    """Build a body that repeats one filling."""

    def make(size: int) -> bytes:
        return start + filling * max(1, size // len(filling)) + end

    return make


def prompt(filling: bytes, end: bytes = b"") -> Callable[[int], bytes]:
    """Build a native request whose prompt repeats one filling."""
    return filled(b'{"model":"bench","stream":false,"prompt":"', filling, end + b'"}')


def native(key: bytes, start: bytes, filling: bytes, end: bytes) -> Callable[[int], bytes]:
    """Build a native request with one long value."""
    opening = b'{"model":"bench","stream":false,"prompt":"hi","%b":%b' % (key, start)
    return filled(opening, filling, end + b"}")


def openai(key: bytes, start: bytes, filling: bytes, end: bytes) -> Callable[[int], bytes]:
    """Build a request in OpenAI's format with one long value."""
    messages = b"" if key == b"messages" else b'"messages":[{"role":"user","content":"hi"}],'
    return filled(b'{"model":"bench",%b"%b":%b' % (messages, key, start), filling, end + b"}")


def internal(start: bytes, filling: bytes, end: bytes) -> Callable[[int], bytes]:
    """Build a request to one of olla's internal APIs."""
    return filled(start, filling, end)


def keys(text: bytes) -> Callable[[int], bytes]:
    """Build a native request with very many different keys at its top level."""

    def make(size: int) -> bytes:
        count = size // (len(text) + 12)
        return b'{"model":"bench",%b}' % b",".join(b'"k%08d":%b' % (n, text) for n in range(count))

    return make


def option_keys(size: int) -> bytes:
    """Build a native request with very many different options."""
    some = b",".join(b'"k%08d":1' % number for number in range(size // 13))
    return b'{"model":"bench","prompt":"hi","stream":false,"options":{%b}}' % some


def form(start: bytes, filling: bytes, end: bytes = b"") -> Callable[[int], bytes]:
    """Build an audio request: a form whose model follows the filling."""
    line = b"--" + _BOUNDARY.encode()
    model = b'%b\r\nContent-Disposition: form-data; name="model"\r\n\r\nbench\r\n' % line
    return filled(line + b"\r\n" + start, filling, end + b"\r\n" + model + line + b"--\r\n")


_FILE = b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
_TINY = b'\r\n--%b\r\nContent-Disposition: form-data; name="x"\r\n\r\n1' % _BOUNDARY.encode()
_MESSAGE = b'{"role":"user","content":"hi"},'
_LAST = b'{"role":"user","content":"hi"}]'
_PAGE = b'{"role":"user","content":"%b"}' % (
    b'She said: \\"Look at this.\\"\\nAnd so they did.' * 60
)
_TOOL = b'{"type":"function","function":{"name":"f"}},'
_IMAGE = b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGA"
_ALL = (1, 10, 96)
_CHUNK = b'"%b",' % (b"A passage of two thousand letters, as it is embedded. " * 37)

SHAPES = (
    # Strings.
    Shape("plain prompt", _GENERATE, prompt(b"The quick brown fox "), _ALL),
    Shape(
        "plain prompt, in chunks",
        _GENERATE,
        prompt(b"The quick brown fox "),
        (10, 96),
        chunked=True,
    ),
    Shape(
        "plain prompt, endpoint with TLS",
        _GENERATE,
        prompt(b"The quick brown fox "),
        (10, 96),
        tls=True,
    ),
    Shape(
        "one number", _GENERATE, filled(b'{"model":"bench","stream":false,"x":0.', b"9", b"}"), _ALL
    ),
    Shape("`\\n` escapes, half a surrogate", _GENERATE, prompt(b"\\n", b"\\ud800"), _ALL),
    Shape("half surrogates only", _GENERATE, prompt(b"\\ud800"), _ALL),
    Shape("surrogate pairs, half a one", _GENERATE, prompt(b"\\ud83d\\ude00", b"\\ud83d")),
    Shape("`\\u0041` escapes", _GENERATE, prompt(b"\\u0041"), (10, 96)),
    Shape('`\\"` escapes', _GENERATE, prompt(b'\\"'), (10, 96)),
    Shape('`\\\\\\"` escapes', _GENERATE, prompt(b'\\\\\\"')),
    Shape("emoji, unescaped", _GENERATE, prompt("\U0001f600".encode()), (10, 96)),
    Shape("letters, one emoji", _GENERATE, prompt(b"x", "\U0001f600".encode()), (10, 96)),
    Shape("base64 images", _GENERATE, native(b"images", b'["', _IMAGE, b'"]'), (10, 96)),
    Shape('`"model"` in a text', _GENERATE, prompt(b'\\"model\\":\\"x\\",', b"\\u0041"), (2, 10)),
    Shape("model of that size", _GENERATE, filled(b'{"prompt":"hi","model":"', b"m", b'"}')),
    Shape("model of escapes", _GENERATE, filled(b'{"prompt":"hi","model":"', b"\\n", b'"}')),
    # Containers.
    Shape("options: `[[],[],…]`", _GENERATE, native(b"options", b'{"x":[', b"[],", b"0]}"), _ALL),
    Shape("options: `[{},{},…]`", _GENERATE, native(b"options", b'{"x":[', b"{},", b"0]}")),
    Shape("options: very many keys", _GENERATE, option_keys, (1, 10)),
    Shape("unknown key: `[[],[],…]`", _GENERATE, native(b"x", b"[", b"[],", b"0]"), (10, 96)),
    Shape("keep_alive: `[[],[],…]`", _GENERATE, native(b"keep_alive", b"[", b"[],", b"0]")),
    Shape("keep_alive: strings", _GENERATE, native(b"keep_alive", b"[", b'"",', b'""]'), (10, 96)),
    Shape("model: `[[],[],…]`", _GENERATE, filled(b'{"model":[', b"[],", b"0]}")),
    Shape("stream: `[[],[],…]`", _GENERATE, filled(b'{"model":"bench","stream":[', b"[],", b"0]}")),
    Shape("context: numbers", _GENERATE, native(b"context", b"[", b"1,", b"1]"), (10, 96)),
    Shape("depth 100,000", _GENERATE, lambda _: native(b"x", b"", b"[", b"]" * 10**5)(10**5)),
    Shape(
        "depth 500, over and over",
        _GENERATE,
        native(b"x", b"[", b"[" * 500 + b"]" * 500 + b",", b"0]"),
    ),
    Shape("max_tokens: `[[],[],…]`", _CHAT, openai(b"max_tokens", b"[", b"[],", b"0]")),
    Shape("messages, very many", _CHAT, openai(b"messages", b"[", _MESSAGE, _LAST), (10, 96)),
    Shape("messages of a page", _CHAT, openai(b"messages", b"[", _PAGE + b",", _LAST), (1, 10, 96)),
    Shape("tools, very many", _CHAT, openai(b"tools", b"[", _TOOL, _TOOL[:-1] + b"]")),
    Shape("stop: very many", _CHAT, openai(b"stop", b"[", b'"",', b'""]'), (10, 96)),
    Shape(
        "texts to embed",
        "/v1/embeddings",
        filled(b'{"model":"bench","input":[', _CHUNK, b'""]}'),
        (10, 96),
    ),
    Shape(
        "Anthropic messages",
        "/v1/messages",
        filled(b'{"model":"bench","max_tokens":1,"messages":[', _MESSAGE, _LAST + b"}"),
    ),
    # Keys, numbers, whitespace, and invalid JSON.
    Shape("keys, each another", _GENERATE, keys(b"1"), (1, 10)),
    Shape("keys with `{}`, each another", _GENERATE, keys(b"{}")),
    Shape("a key of escapes", _GENERATE, filled(b'{"model":"bench","', b"\\n", b'":1}')),
    Shape("one key over and over", _GENERATE, filled(b"{", b'"x":1,', b'"model":"bench"}')),
    Shape("model over and over", _GENERATE, filled(b"{", b'"model":"x",', b'"model":"bench"}')),
    Shape("num_ctx of that many digits", _GENERATE, native(b"options", b'{"num_ctx":', b"1", b"}")),
    Shape(
        "num_ctx 1e999999",
        _GENERATE,
        lambda _: native(b"options", b'{"num_ctx":', b"1e999999", b"}")(8),
    ),
    Shape(
        "num_predict of that many digits",
        _GENERATE,
        native(b"options", b'{"num_predict":', b"1", b"}"),
    ),
    Shape("white space", _GENERATE, native(b"x", b"", b" ", b"1"), (10, 96)),
    Shape(
        "not JSON at its last byte",
        _GENERATE,
        filled(b'{"model":"bench","prompt":"', b"x", b'")'),
        (10, 96),
    ),
    Shape("not UTF-8 at its last byte", _GENERATE, prompt(b"x", b"\xff"), (10, 96)),
    # Bodies that olla rewrites.
    Shape(
        "another name for the model",
        _GENERATE,
        filled(b'{"model":"other","prompt":"', b"\\n", b'"}'),
        (10, 96),
    ),
    Shape(
        "num_ctx that is rounded up",
        _GENERATE,
        native(b"options", b'{"num_ctx":1000},"x":"', b"x", b'"'),
        (10, 96),
    ),
    # Forms.
    Shape("a file", "/v1/audio/transcriptions", form(_FILE, b"\0"), (10, 96), _FORM),
    Shape("a file of line ends", "/v1/audio/transcriptions", form(_FILE, b"\r\n"), (10,), _FORM),
    Shape(
        "a file of near boundaries",
        "/v1/audio/transcriptions",
        form(_FILE, b"\r\n--%b" % _BOUNDARY[:-1].encode()),
        (10, 96),
        _FORM,
    ),
    Shape("very many parts", "/v1/audio/transcriptions", form(_FILE, _TINY), (10,), _FORM),
    Shape(
        "very many header lines",
        "/v1/audio/transcriptions",
        form(b"", b"X: 1\r\n", _FILE),
        (10,),
        _FORM,
    ),
    # olla's internal APIs.
    Shape(
        "/chat: long message",
        "/chat",
        internal(b'{"model":"bench","message":"', b"\\n", b'"}'),
        (1, 4, 96),
    ),
    Shape(
        "/chat: `[[],[],…]`",
        "/chat",
        internal(b'{"model":"bench","message":"hi","x":[', b"[],", b"0]}"),
        (1, 4, 96),
    ),
    Shape(
        "/chat/stream: half surrogates",
        "/chat/stream",
        internal(b'{"model":"bench","message":"', b"\\ud800", b'"}'),
        (4,),
    ),
    Shape(
        "management chat: `[[],[],…]`",
        "/olla/management/chat",
        internal(
            b'{"model":"bench","messages":[{"role":"user","content":"hi"}],"x":[', b"[],", b"0]}"
        ),
        _ALL,
    ),
    Shape(
        "management chat: messages",
        "/olla/management/chat",
        internal(b'{"model":"bench","messages":[', _MESSAGE, _LAST + b"}"),
        (1, 10),
    ),
    Shape(
        "management chat: an image",
        "/olla/management/chat",
        internal(
            b'{"model":"bench","messages":[{"role":"user","content":[{"type":"image_url",'
            b'"image_url":{"url":"',
            _IMAGE,
            b'"}}]}]}',
        ),
        (4,),
    ),
    Shape(
        "management generate: long prompt",
        "/olla/management/generate",
        internal(b'{"model":"bench","prompt":"', b"\\n", b'"}'),
        (1, 4),
    ),
    Shape(
        "key to be made: `[[],[],…]`",
        "/olla/management/api-keys",
        internal(b'{"name":"a","x":[', b"[],", b"0]}"),
        _ALL,
    ),
    Shape(
        "/api/keys: `[[],[],…]`",
        "/api/keys",
        internal(b'{"user_id":"a","x":[', b"[],", b"0]}"),
        _ALL,
    ),
)
