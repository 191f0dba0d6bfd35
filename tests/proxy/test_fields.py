"""Which fields pass, and which end here."""

from olla.proxy.fields import HOP_BY_HOP, dropped_fields, passed_fields, reason_phrase


def test_what_connection_names_ends_here_too() -> None:
    """In any case, but for the words that are no field."""
    dropped = dropped_fields([b"close, X-Secret", b"keep-alive"], HOP_BY_HOP)
    assert dropped - HOP_BY_HOP == {b"x-secret"}
    assert dropped_fields([b"close"], HOP_BY_HOP) is HOP_BY_HOP


def test_an_answers_end_to_end_fields_pass_in_order_and_spelling() -> None:
    """Without framing, hop-by-hop fields and what looks like olla's own."""
    headers = [
        (b"x-b", b"X-B", b"1"),
        (b"connection", b"Connection", b"x-a"),
        (b"x-a", b"x-a", b"2"),
        (b"content-length", b"Content-Length", b"3"),
        (b"x-olla-endpoint", b"X-Olla-Endpoint", b"fake"),
        (b"x-b", b"X-B", b""),
    ]
    assert passed_fields(200, b"", headers) == b"HTTP/1.1 200 OK\r\nX-B: 1\r\nX-B: \r\n"


def test_phrases_are_the_standard_ones() -> None:
    """Where there is one."""
    assert reason_phrase(503) == "Service Unavailable"
    assert reason_phrase(299) == "Unknown"
    assert reason_phrase(499) == "Client Closed Request"
