"""Reading the API keys of a request."""

import pytest

from olla.proxy.http.credentials import credentials

AUTH, KEY = b"Authorization", b"X-API-Key"


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([(AUTH, b"Bearer abc")], ((b"authorization", "abc"),)),
        ([(b"AUTHORIZATION", b"bearer   abc ")], ((b"authorization", "abc"),)),
        ([(AUTH, b"Bearer\tabc")], ((b"authorization", "abc"),)),
        ([(b"x-api-key", b" abc ")], ((b"x-api-key", "abc"),)),
        ([(KEY, b"b"), (AUTH, b"Bearer a")], ((b"x-api-key", "b"), (b"authorization", "a"))),
        ([(AUTH, b"Basic abc")], ()),
        ([(AUTH, b"Bearer")], ()),
        ([(AUTH, b"Bearer ")], ()),
        ([(KEY, b" ")], ()),
        ([(b"X-API-Kex", b"abc"), (b"Host", b"x")], ()),
        ([(AUTH, b"Bearer \xff\xfe")], ((b"authorization", "\xff\xfe"),)),
    ],
)
def test_bearer_tokens_and_api_keys_are_found(
    headers: list[tuple[bytes, bytes]], found: tuple[tuple[bytes, str], ...]
) -> None:
    """In any spelling of the fields; other fields are ignored."""
    assert credentials(headers) == found
