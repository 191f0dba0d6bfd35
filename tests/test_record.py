"""One record per request, for whoever wants to know."""

from olla.record import RequestRecord, Sink, fan_out


def record() -> RequestRecord:
    """A record."""
    return RequestRecord(id="1", method="GET", path="/", client="", started=0.0, started_wall=0.0)


def test_every_sink_gets_the_record_even_when_one_fails() -> None:
    """The failure is told, and keeps nobody else from the record."""
    got: list[str] = []
    told: list[tuple[Sink, Exception]] = []

    def broken(_: RequestRecord) -> None:
        raise ValueError("broken")

    def first(_: RequestRecord) -> None:
        got.append("first")

    def last(_: RequestRecord) -> None:
        got.append("last")

    fan_out([first, broken, last], lambda sink, error: told.append((sink, error)))(record())
    assert got == ["first", "last"]
    assert [sink for sink, _ in told] == [broken]


def test_records_do_not_share_their_attempts() -> None:
    """Each begins with none of its own."""
    one, other = record(), record()
    assert one.attempts == []
    assert one.attempts is not other.attempts
