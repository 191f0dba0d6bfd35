"""Keys are found by what is shown, and refused once what made them has ended."""

from olla.access.keyring import Keyring, refuse_key
from olla.access.keys import OPEN_MAKER, Key, digest_of
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


def refusals(ring: Keyring, *secrets: str) -> list[Kind | None]:
    """Why each of these keys is not accepted; None for those that are."""
    found = []
    for secret in secrets:
        caller = ring.find(secret)
        assert caller is not None
        refusal = ring.refusal(caller, 10.0)
        found.append(refusal.kind if refusal is not None else None)
    return found


REVOKED = Kind.KEY_REVOKED


def test_a_key_is_refused_once_its_maker_is_revoked() -> None:
    """And so is what it made, at once where the revocation is heard of, though the rows read
    before say otherwise."""
    ring = Keyring()
    rows = [key("a", "1"), key("b", "2", made_by="1"), key("c", "3", made_by="2"), key("d", "4")]
    ring.renew(rows)
    assert refusals(ring, *"abcd") == [None] * 4
    ring.revoke("1")
    assert refusals(ring, *"abcd") == [REVOKED, REVOKED, REVOKED, None]
    ring.renew(rows)
    assert refusals(ring, *"abcd") == [REVOKED, REVOKED, REVOKED, None]
    ring = Keyring()
    ring.renew([key("a", "1", revoked=5.0), *rows[1:]])
    assert refusals(ring, *"abcd") == [REVOKED, REVOKED, REVOKED, None]


def test_a_key_whose_maker_is_not_there_is_refused() -> None:
    """Nobody could revoke it by its maker."""
    ring = Keyring()
    ring.renew([key("b", "2", made_by="1"), key("c", "3", made_by="3")])
    assert refusals(ring, *"bc") == [REVOKED, None]


def test_a_key_outlives_the_expiry_of_its_maker() -> None:
    """An expiry was set in advance, a revocation was not."""
    ring = Keyring()
    ring.renew([key("a", "1", expires=5.0), key("b", "2", made_by="1")])
    assert refusals(ring, *"ab") == [Kind.KEY_EXPIRED, None]


def test_keys_of_a_static_key_live_as_long_as_it_stands_in_the_file() -> None:
    """With its name and its secret: one that was replaced is another key."""
    static = key("static-secret", "static:ci")
    ring = Keyring([static])
    ring.renew([key("b", "2", made_by=static.mark), key("c", "3", made_by="2")])
    assert refusals(ring, *"bc") == [None, None]
    for others in ([], [key("other-secret", "static:ci")], [key("static-secret", "static:me")]):
        ring.settle(others)
        assert refusals(ring, *"bc") == [REVOKED, REVOKED], others
    caller = ring.find("b")
    assert caller is not None
    refusal = ring.refusal(caller, 1.0)
    assert refusal is not None
    assert "'static:ci'" in refusal.message
    assert static.mark not in refusal.message
    ring.settle([static])
    assert refusals(ring, *"bc") == [None, None]


def test_keys_that_nobody_had_to_show_one_for_live_as_long_as_that_is_open() -> None:
    """Closing it ends what was made meanwhile."""
    ring = Keyring()
    ring.renew([key("b", "2", made_by=OPEN_MAKER)])
    assert refusals(ring, "b") == [REVOKED]
    ring.settle([], makers=[OPEN_MAKER])
    assert refusals(ring, "b") == [None]


def test_a_key_of_a_tier_that_is_not_defined_is_refused() -> None:
    """It would have no limits; the refusal says what to define."""
    ring = Keyring()
    ring.renew([key("a", "1", tier="gold"), key("b", "2", tier="member")])
    assert refusals(ring, *"ab") == [None, None]
    ring.settle([], tiers=["member", "standard"])
    assert refusals(ring, *"ab") == [Kind.FORBIDDEN, None]
    caller = ring.find("a")
    assert caller is not None
    refusal = ring.refusal(caller, 1.0)
    assert refusal is not None
    assert "access.tiers.gold" in refusal.message


def test_long_chains_of_makers_are_judged_at_once() -> None:
    """Each key is looked at once, so that chains cost what their keys cost."""
    ring = Keyring()
    ring.renew([key("0", "0")] + [key(str(n), str(n), made_by=str(n - 1)) for n in range(1, 5000)])
    ring.revoke("0")
    assert refusals(ring, "1", "4999") == [REVOKED, REVOKED]
