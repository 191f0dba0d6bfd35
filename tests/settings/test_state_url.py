"""What the URL of shared state may look like."""

import pytest

from olla.settings.state_url import checked_state_url


@pytest.mark.parametrize(
    "url",
    [
        "redis://redis",
        "redis://redis:6379/0",
        "redis://:p%40ss@10.0.0.1/3",
        "rediss://user:pass@redis.example:6380?ssl_ca_certs=/etc/ca.pem",
        "redis://[::1]:6379",
        "unix:///run/redis.sock",
        "unix://user:pass@/run/redis.sock?db=2",
    ],
)
def test_a_server_or_a_socket_is_named(url: str) -> None:
    """It comes out as it went in."""
    assert checked_state_url(url) == url


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis:6379", "names no server"),
        ("http://u:hunter2@redis", "must begin with redis://"),
        ("", "must begin with redis://"),
        ("redis://", "names no server; write redis://host:6379/0"),
        ("redis://:hunter2@", "names no server"),
        ("redis://u:hunter2@redis:0", "names no server"),
        ("redis://u:hunter2@redis:99999", "cannot be read"),
        ("redis://u:hunter2/x@redis", "percent-encode"),
        ("redis://u:12#hunter2@redis", "write it %23"),
        ("redis://u:hunter2@redis/0#x", "write it %23"),
        ("redis://u:hunter2@redis/zero", "number of a database"),
        ("redis://u:hunter2@redis?db=zero", "number of a database"),
        ("redis://u:hunter2@redis?socket_timeout=5", "may set db, ssl_ca_certs"),
        ("redis://[::1", "cannot be read"),
        ("unix://u:hunter2@", "names no socket"),
        ("unix://host/path", "names no socket"),
        ("redis://u:hunter2 @redis", "percent-encode"),
        ("redis://u:hünter2@redis", "percent-encode"),
        ("redis://redis\n", "percent-encode"),
    ],
)
def test_what_names_none_is_refused(url: str, message: str) -> None:
    """The message says what to write, and never repeats a password."""
    with pytest.raises(ValueError, match=message) as caught:
        checked_state_url(url)
    assert "nter2" not in str(caught.value)
