"""Where fuzzing begins: well-formed inputs of each target."""

__all__ = ["SEEDS"]

SEEDS: dict[str, tuple[bytes, ...]] = {
    "head": (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 12\r\nRetry-After: 3",
        b"HTTP/1.0 204 No Content\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5, max=100",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Encoding: gzip\r\nX-A:  b \t",
    ),
    "request": (
        b"POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\n"
        b"Connection: close\r\nContent-Length: 10\r\nUser-Agent: a/1 (b; c)\r\n\r\n{",
        b"POST /olla/ollama/api/generate HTTP/1.1\r\nhost: [::1]:1\r\ncontent-length:0\r\n\r\n",
    ),
    "chunks": (
        b"\x01\x05\x09\x0d5\r\nhello\r\n0\r\n\r\n",
        b"\x03\x03\x14\x02a;x=y\r\n0123456789\r\n1\r\n.\r\n0\r\nX-A: b\r\n\r\nrest",
        b"\x00\x01\x02\x03FF\r\n" + b"z" * 255 + b"\r\n000\r\n\r\n",
    ),
    "peek": (
        b'{"model": "llama3.2", "stream": false, "messages": [{"role": "user"}]}',
        b'{"name": "m", "model": null, "stream": true, "x": {"model": 1}}',
        b'{"\\u006dodel": "a\\ud83d\\ude00", "options": {"num_ctx": 1e3}, "keep_alive": "5m"}',
    ),
    "scan": (
        b'{"a": "%b", "b": [1, "%b", {"c": "\\ud83d"}], "a": null}' % (b"x" * 50, b"\\n" * 40),
        b'{"\\u0061": "%b"}' % ('\u00e9\\\\\\"\U0001f600' * 9).encode(),
        b'{ "a" : "%b\\\\" , "b" : {} }' % (b'\\"' * 30),
    ),
    "settings": (
        b"server: {port: 8080, host: localhost}\nproxy:\n  load_balancer: priority\n",
        b"discovery:\n  static:\n    endpoints:\n      - {url: 'http://a:1', type: ollama}\n",
        b"model_aliases: {chat: [a, b]}\nserver:\n  request_limits: {max_body_size: 10MB}\n",
    ),
}
"""By the target's name."""
