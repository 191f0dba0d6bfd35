"""Tests of the options derived from settings."""

from olla.app.options import load_timeout, needs_restart
from olla.settings import parse


def test_changes_that_need_a_restart_are_listed() -> None:
    """The listening address and the log need one; other keys do not."""
    before = parse("", {}).settings
    after = parse(
        "server: {port: 1, idle_timeout: 5s}\nlogging: {format: text}\n"
        "proxy: {load_balancer: priority}\n",
        {},
    ).settings
    assert needs_restart(before, after) == ["server.port", "logging"]
    assert needs_restart(before, before) == []


def test_the_load_time_out_is_twice_the_first_byte_time_out() -> None:
    """There is no limit on loads if the first byte has none."""
    assert load_timeout(parse("", {}).settings) == 1200.0
    unbounded = parse("proxy: {response_header_timeout: 0s}", {}).settings
    assert load_timeout(unbounded) == 0.0
