"""Which requests may go on."""

import pytest

from olla.access.policy import AccessPolicy
from olla.dialects.dialect import Right
from olla.dialects.paths import Paths, ScopeSpec
from olla.failures import Failed, Kind
from olla.fleet.profiles import PROFILES
from olla.proxy.auth.authorize import authorize
from olla.proxy.server.fast_path import FastRequest
from olla.proxy.server.hot_head import CacheSize, HotHead
from tests.gates import open_authenticator

PATHS = Paths(
    [ScopeSpec(row.name, row.prefixes, row.dialects) for row in PROFILES.values()],
    root_enabled=True,
)


def allowed(
    path: str, peer: str = "10.0.0.1", policy: AccessPolicy | None = None, **headers: str
) -> Kind | None:
    """None for a request that may, else the kind of refusal."""
    target = PATHS.resolve("POST", path)
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    raw = tuple((name.encode(), value.encode()) for name, value in fields.items())
    try:
        authorize(
            open_authenticator(policy),
            FastRequest(HotHead(path, raw, target, CacheSize()), peer, 2),
            target,
            "olla-abc",
        )
    except Failed as failed:
        return failed.failure.kind
    return None


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ({}, None),
        ({"Via": "1.1 olla-other"}, None),
        ({"Via": "1.1 front, 1.1 olla-abc"}, Kind.LOOP),
        ({"Content_Encoding": "identity"}, None),
        ({"Content_Encoding": "gzip"}, None),
        ({"Content_Encoding": "zstd"}, None),
        ({"Content_Encoding": "br"}, Kind.ENCODING_UNSUPPORTED),
        ({"Content_Encoding": "gzip, gzip"}, Kind.ENCODING_UNSUPPORTED),
        ({"X_Olla_Endpoint": "gpu-1"}, Kind.FORBIDDEN),
    ],
)
def test_inference_is_open_but_for_what_it_may_not_ask(
    headers: dict[str, str], kind: Kind | None
) -> None:
    """From anywhere; its own requests, codings that nobody decodes and pinning from afar are
    refused."""
    assert allowed("/api/chat", **headers) is kind


def test_only_json_is_decoded() -> None:
    """A form goes on as it came, so it has to come as it is."""
    path = "/v1/audio/transcriptions"
    assert allowed(path, Content_Encoding="gzip") is Kind.ENCODING_UNSUPPORTED
    assert allowed(path, Content_Encoding="identity") is None


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", "10.0.0.1"])
def test_management_takes_a_right_wherever_the_caller_is(peer: str) -> None:
    """The address and the headers that proxies add change nothing."""
    assert allowed("/api/pull", peer) is Kind.FORBIDDEN
    assert allowed("/api/pull", peer, X_Forwarded_For="") is Kind.FORBIDDEN
    open_to_all = AccessPolicy(anonymous=frozenset({Right.MANAGE}))
    assert allowed("/api/pull", peer, open_to_all) is None
    assert allowed("/api/pull", peer, open_to_all, X_Forwarded_For="10.0.0.1") is None
    assert allowed("/api/chat", peer, open_to_all) is Kind.FORBIDDEN


@pytest.mark.parametrize("peer", ["127.0.0.1", "10.0.0.1"])
@pytest.mark.parametrize("path", ["/api/chat", "/api/pull", "/api/show"])
def test_required_keys_come_before_what_is_open_without_one(peer: str, path: str) -> None:
    """With `require_key` no operation is open, whatever `anonymous_operations` says."""
    policy = AccessPolicy(require_key=True, anonymous=frozenset(Right))
    assert allowed(path, peer, policy) is Kind.KEY_MISSING
    assert allowed(path, peer, policy, Authorization="Bearer x") is Kind.KEY_MISSING
    assert allowed(path, peer, policy, Authorization="Basic eDp5") is Kind.KEY_MISSING
    assert allowed(path, peer, policy, X_API_Key="") is Kind.KEY_MISSING
