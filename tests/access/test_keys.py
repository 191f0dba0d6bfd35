"""Keys cannot be guessed, and what is kept of them gives nothing away."""

import re

from olla.access.keys import SECRET_BYTES, Key, digest_of, form_key


def test_a_key_is_readable_at_its_start_and_carries_all_of_its_chance() -> None:
    """A prefix that tells what it is, then 256 bits."""
    key, digest, shown = form_key(bytes(range(SECRET_BYTES)))
    assert re.fullmatch(r"oa-[A-Za-z0-9_-]{43}", key)
    assert digest == digest_of(key)
    assert key.startswith(shown)
    assert len(shown) <= 10


def test_other_bits_are_another_key() -> None:
    """No two secrets share a digest."""
    assert form_key(bytes(32))[1] != form_key(b"\1" + bytes(31))[1]


def test_what_is_kept_of_a_key_does_not_have_it() -> None:
    """Whatever prints a `Key` prints no secret."""
    key, digest, shown = form_key(bytes(32))
    assert key not in repr(Key("1", digest, shown, "ci"))


def test_a_key_expires_when_its_time_is_over() -> None:
    """Without a time it never does."""
    key = Key("1", b"", "oa-", "ci")
    assert not key.expired(1e12)
    timed = Key("1", b"", "oa-", "ci", expires=100.0)
    assert not timed.expired(99.9)
    assert timed.expired(100.0)
