"""Tests of request records and their sinks."""

from olla.record import RequestRecord, Sink, fan_out


def record() -> RequestRecord:
    """Return a record."""
    return RequestRecord(id="1", method="GET", path="/", client="", started=0.0, started_wall=0.0)


def test_every_sink_gets_the_record_even_when_one_fails() -> None:
    """The failure is reported, and the other sinks still get the record."""
    received: list[str] = []
    failures: list[tuple[Sink, Exception]] = []

    def broken(_: RequestRecord) -> None:
        raise ValueError("broken")

    def first(_: RequestRecord) -> None:
        received.append("first")

    def last(_: RequestRecord) -> None:
        received.append("last")

    fan_out([first, broken, last], lambda sink, error: failures.append((sink, error)))(record())
    assert received == ["first", "last"]
    assert [sink for sink, _ in failures] == [broken]


def test_records_do_not_share_their_attempts() -> None:
    """Each starts with an empty list."""
    one, other = record(), record()
    assert one.attempts == []
    assert one.attempts is not other.attempts
