"""Callers are found by their keys, and charged for what they use."""

from typing import Any

import msgspec
import pytest

from olla.access.caller import Caller
from olla.access.keyring import Keyring, UnknownKey
from olla.access.keys import Key, digest_of
from olla.access.limit import Limit, LimitKind
from olla.access.policy import AccessPolicy
from olla.dialects.dialect import Right
from olla.failures import Failed, Failure, Kind
from olla.proxy.auth.authenticate import Authenticator, Quota, SurfaceQuota
from olla.proxy.server.fast_path import FastRequest
from olla.proxy.server.hot_head import CacheSize, HotHead
from olla.record import RequestRecord
from tests.gates import open_authenticator
from tests.proxy.exchange.test_exchange import PATHS

MINE, OTHER = "oa-mine-0123456789", "oa-other-0123456789"


class StoppedClock:
    """A clock in the test's hand: monotonic and Unix seconds alike."""

    def __init__(self) -> None:
        self.at = 1000.0

    def now(self) -> float:
        """Monotonic seconds."""
        return self.at

    def wall(self) -> float:
        """Unix seconds."""
        return self.at


def key(text: str, **fields: Any) -> Key:
    """A key of the configuration."""
    return Key("static:ci", digest_of(text), text[:8], "ci", tier="standard", **fields)


def request(peer: str = "10.0.0.1", **headers: str) -> FastRequest:
    """A request with these header fields."""
    raw = tuple((n.replace("_", "-").encode(), v.encode()) for n, v in headers.items())
    target = PATHS.resolve("POST", "/api/chat")
    return FastRequest(HotHead("/api/chat", raw, target, CacheSize()), peer, 2)


def found(authenticator: Authenticator, *, strict: bool = False, **headers: str) -> Caller | Kind:
    """The caller, or why there is none."""
    try:
        return authenticator.identify(request(**headers), strict=strict)
    except UnknownKey:
        return Kind.KEY_INVALID
    except Failed as failed:
        return failed.failure.kind


def test_a_key_is_found_in_either_field() -> None:
    """`Authorization: Bearer` and `X-API-Key`; of two that are sent, the valid one is used."""
    authenticator = open_authenticator(keyring=Keyring([key(MINE)]))
    for headers in (
        {"Authorization": f"Bearer {MINE}"},
        {"X_API_Key": MINE},
        {"Authorization": "Bearer sk-of-another-server", "X_API_Key": MINE},
    ):
        caller = found(authenticator, **headers)
        assert isinstance(caller, Caller)
        assert caller.id == "static:ci"


def test_a_key_that_was_shown_goes_no_further() -> None:
    """The endpoint must not see it; a key of another server may go on."""
    authenticator = open_authenticator(keyring=Keyring([key(MINE)]))
    incoming = request(Authorization=f"Bearer {MINE}")
    authenticator.identify(incoming)
    assert incoming.hidden == {b"authorization"}
    foreign = request(Authorization="Bearer sk-of-another-server")
    open_authenticator().identify(foreign)
    assert not foreign.hidden


@pytest.mark.parametrize(
    ("policy", "shown", "expected"),
    [
        (AccessPolicy(), None, "addr:10.0.0.1"),
        (AccessPolicy(), "sk-foreign-0123456789", "addr:10.0.0.1"),
        (AccessPolicy(), OTHER, Kind.KEY_INVALID),
        (AccessPolicy(require_key=True), None, Kind.KEY_MISSING),
        (AccessPolicy(require_key=True), "sk-foreign-0123456789", Kind.KEY_INVALID),
        (AccessPolicy(require_key=True), MINE, "static:ci"),
    ],
)
def test_who_is_known_without_a_key_and_who_is_not(
    policy: AccessPolicy, shown: str | None, expected: str | Kind
) -> None:
    """An unknown key that looks like one of ours is always an error."""
    policy = msgspec.structs.replace(policy, guarded=policy.require_key)
    headers = {} if shown is None else {"X_API_Key": shown}
    caller = found(open_authenticator(policy, Keyring([key(MINE)])), **headers)
    assert (caller.id if isinstance(caller, Caller) else caller) == expected


@pytest.mark.parametrize(
    ("fields", "kind"),
    [({"revoked": 1.0}, Kind.KEY_REVOKED), ({"expires": 1.0}, Kind.KEY_EXPIRED)],
)
def test_keys_end(fields: dict[str, float], kind: Kind) -> None:
    """And the refusal says how."""
    keyring = Keyring()
    keyring.renew([msgspec.structs.replace(key(MINE), id="7", **fields)])
    assert found(open_authenticator(keyring=keyring), X_API_Key=MINE) is kind


def test_rights_of_callers_without_a_key_follow_the_rules_in_force() -> None:
    """Also those of an address that was seen before."""
    authenticator = open_authenticator(AccessPolicy(anonymous=frozenset({Right.LIST})))
    assert authenticator.anonymous(request()).rights == {Right.LIST}
    authenticator.adopt(AccessPolicy(anonymous=frozenset()))
    assert authenticator.anonymous(request()).rights == set()


LIMITS = {"generation": (Limit("c", LimitKind.REQUESTS, 2, 2),)}


def charged(quota: Quota) -> Failure | None:
    """Charge a request without features; the refusal."""
    answers: list[Failure | None] = []
    quota.charge(None, answers.append)
    return answers[0]


def new_quota(authenticator: Authenticator, own: SurfaceQuota | None = None) -> Quota:
    """The quota of a request of one address."""
    incoming = request()
    caller = authenticator.anonymous(incoming)
    if own is None:
        return authenticator.quota(caller, "generation", incoming)
    return authenticator.quota(caller, "generation", incoming, own)


def test_a_limit_refuses_with_the_time_to_wait() -> None:
    """And says which limit it was, to the client and to the metrics."""
    clock, exceeded = StoppedClock(), list[tuple[str, bool]]()
    authenticator = open_authenticator(AccessPolicy(categories=LIMITS), None, clock, exceeded)
    quotas = [new_quota(authenticator) for _ in range(3)]
    refusals = [charged(quota) for quota in quotas]
    assert refusals[:2] == [None, None]
    refusal = refusals[2]
    assert refusal is not None
    assert refusal.kind is Kind.LIMITED
    assert refusal.retry_after == pytest.approx(30.0)
    assert [name for name, _ in exceeded] == ["c.requests_per_minute"]
    clock.at += 30.0
    assert charged(new_quota(authenticator)) is None


def test_fields_tell_what_is_left() -> None:
    """Seconds to the reset, or a Unix time where the surface says so."""
    authenticator = open_authenticator(AccessPolicy(categories=LIMITS), None, StoppedClock())
    quota = new_quota(authenticator)
    assert charged(quota) is None
    assert quota.fields().startswith(b"X-RateLimit-Limit: 2\r\nX-RateLimit-Remaining: 1\r\n")
    unix = new_quota(authenticator, SurfaceQuota(unix_reset=True))
    assert charged(unix) is None
    assert int(unix.headers()["X-RateLimit-Reset"]) > 1000
    assert (
        open_authenticator().quota(authenticator.anonymous(request()), "x", request()).fields()
        == b""
    )


def test_unused_tokens_are_given_back() -> None:
    """The reservation is an estimate; the record tells what was used."""
    limit = Limit("c", LimitKind.TOKENS, 100, 100)
    policy = AccessPolicy(categories={"generation": (limit,)})
    authenticator = open_authenticator(policy, None, StoppedClock())
    quota = new_quota(authenticator)
    answers: list[Failure | None] = []
    quota.reserve(400, answers.append)
    assert answers == [None]
    record = RequestRecord("1", "POST", "/", "10.0.0.1", 0.0, 0.0)
    record.prompt_tokens, record.output_tokens = 4, 6
    quota.settle(record)
    assert quota.account is not None
    assert quota.account.tokens_left(1000.0, 1000.0) == 90


def test_a_rejected_request_counts_against_its_key() -> None:
    """If that is known, else against its address."""
    authenticator = open_authenticator(keyring=Keyring([key(MINE)]))
    with_key = authenticator.quota_of_rejected(request(X_API_Key=MINE), "generation")
    without = authenticator.quota_of_rejected(request(X_API_Key=OTHER), "generation")
    assert (with_key.caller.id, without.caller.id) == ("static:ci", "addr:10.0.0.1")


def test_a_quota_names_the_caller_in_the_record() -> None:
    """Its key's owner and name, and its tier."""
    record = RequestRecord("1", "POST", "/", "10.0.0.1", 0.0, 0.0)
    authenticator = open_authenticator(keyring=Keyring([key(MINE, owner="alice")]))
    incoming = request(X_API_Key=MINE)
    authenticator.quota(authenticator.identify(incoming), "generation", incoming).annotate(record)
    assert (record.caller, record.owner, record.key_name) == ("static:ci", "alice", "ci")
    assert record.tier == "standard"
