"""Keys are found by what is shown, and by nothing else."""

from olla.access.keyring import Keyring, refuse_key
from olla.access.keys import Key, digest_of
from olla.failures import Kind


def key(secret: str, id: str = "1", **changes: object) -> Key:
    """A key that is known by a secret."""
    return Key(id, digest_of(secret), secret[:4], "n", **changes)  # type: ignore[arg-type]


def test_whoever_shows_a_key_is_found() -> None:
    """A static one and a stored one; nobody else is."""
    ring = Keyring([key("static-secret", "static:ci")])
    ring.renew([key("oa-stored")])
    static, stored = ring.find("static-secret"), ring.find("oa-stored")
    assert static is not None
    assert stored is not None
    assert (static.id, stored.id) == ("static:ci", "key:1")
    for shown in ("", "oa-store", "oa-stored ", "OA-STORED", "x" * 100_000, "\udcff"):
        assert ring.find(shown) is None
    assert len(ring) == len(ring.callers()) == 2


def test_a_key_that_was_revoked_or_is_over_says_so() -> None:
    """Its time counts to the second."""
    ring = Keyring()
    ring.renew([key("a", "1", revoked=5.0), key("b", "2", expires=100.0), key("c", "3")])
    revoked, timed, good = ring.find("a"), ring.find("b"), ring.find("c")
    assert revoked is not None
    assert timed is not None
    assert good is not None
    refusal = ring.refusal(revoked, 10.0)
    assert refusal is not None
    assert refusal.kind is Kind.KEY_REVOKED
    assert ring.refusal(timed, 99.0) is None
    late = ring.refusal(timed, 100.0)
    assert late is not None
    assert late.kind is Kind.KEY_EXPIRED
    assert ring.refusal(good, 1e12) is None


def test_a_key_revoked_here_stays_so_though_the_store_does_not_know_yet() -> None:
    """What another router announced may be ahead of what the store was read to say."""
    ring = Keyring()
    ring.renew([key("a")])
    ring.revoke("1")
    for _ in range(2):
        caller = ring.find("a")
        assert caller is not None
        assert ring.refusal(caller, 0.0) is not None
        ring.renew([key("a")])


def test_keys_of_the_configuration_can_be_exchanged() -> None:
    """A reload takes some away and brings others; the store's stay."""
    ring = Keyring([key("old", "static:a")])
    ring.renew([key("oa-stored")])
    ring.settle([key("new", "static:a")])
    assert ring.find("old") is None
    assert ring.find("new") is not None
    assert ring.find("oa-stored") is not None


def test_a_refusal_says_how_to_show_a_key_and_never_repeats_one() -> None:
    """Whoever has none learns where it goes."""
    assert "Authorization: Bearer" in refuse_key(None).message
    assert refuse_key("secret-thing").message.startswith("Invalid API key provided")
    assert "secret-thing" not in refuse_key("secret-thing").message
    assert {refuse_key(None).status, refuse_key("x").status} == {401}
