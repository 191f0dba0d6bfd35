"""What a change of settings asks for."""

from olla.app.options import load_timeout, needs_restart
from olla.settings import parse


def test_what_a_running_router_cannot_follow_is_named() -> None:
    """Where it listens, and where its log goes; the rest it can."""
    before = parse("", {}).settings
    after = parse(
        "server: {port: 1, idle_timeout: 5s}\nlogging: {format: text}\n"
        "proxy: {load_balancer: priority}\n",
        {},
    ).settings
    assert needs_restart(before, after) == ["server.port", "logging"]
    assert needs_restart(before, before) == []


def test_a_load_may_take_as_long_as_a_first_byte_after_one() -> None:
    """And any time where the first byte may."""
    assert load_timeout(parse("", {}).settings) == 1200.0
    unbounded = parse("proxy: {response_header_timeout: 0s}", {}).settings
    assert load_timeout(unbounded) == 0.0
