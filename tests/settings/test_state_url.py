"""Tests of the URL of shared state."""

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
def test_a_valid_url_is_returned_unchanged(url: str) -> None:
    """It names a server or a socket."""
    assert checked_state_url(url) == url


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis:6379", "has no host"),
        ("http://u:hunter2@redis", "must begin with redis://"),
        ("", "must begin with redis://"),
        ("redis://", "has no host; write redis://host:6379/0"),
        ("redis://:hunter2@", "has no host"),
        ("redis://u:hunter2@redis:0", "has no host"),
        ("redis://u:hunter2@redis:99999", "cannot be parsed"),
        ("redis://u:hunter2/x@redis", "percent-encode"),
        ("redis://u:12#hunter2@redis", "write it as %23"),
        ("redis://u:hunter2@redis/0#x", "write it as %23"),
        ("redis://u:hunter2@redis/zero", "a database number"),
        ("redis://u:hunter2@redis?db=zero", "a database number"),
        ("redis://u:hunter2@redis?socket_timeout=5", "may only set the options db, ssl_ca_certs"),
        ("redis://[::1", "cannot be parsed"),
        ("unix://u:hunter2@", "has no socket path"),
        ("unix://host/path", "has no socket path"),
        ("redis://u:hunter2 @redis", "percent-encode"),
        ("redis://u:hünter2@redis", "percent-encode"),
        ("redis://redis\n", "percent-encode"),
    ],
)
def test_an_invalid_url_is_rejected(url: str, message: str) -> None:
    """The message says what to write, and never repeats a password."""
    with pytest.raises(ValueError, match=message) as caught:
        checked_state_url(url)
    assert "nter2" not in str(caught.value)
