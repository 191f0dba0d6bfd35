"""Whether a request may be let in."""

import pytest

from olla.dialects.paths import Paths, ScopeSpec
from olla.failures import Failed, Kind
from olla.fleet.profiles import PROFILES
from olla.proxy.allowing import let_in
from olla.proxy.fast_path import HotIncoming
from olla.proxy.hot_head import HotHead, Remembered
from tests.gates import open_gate

PATHS = Paths(
    [ScopeSpec(row.name, row.prefixes, row.dialects) for row in PROFILES.values()],
    root_enabled=True,
)


def allowed(path: str, peer: str = "10.0.0.1", **headers: str) -> Kind | None:
    """None when it is, else the kind of refusal."""
    target = PATHS.resolve("POST", path)
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    raw = tuple((name.encode(), value.encode()) for name, value in fields.items())
    try:
        let_in(
            open_gate(),
            HotIncoming(HotHead(path, raw, target, Remembered()), peer, 2),
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
        ({"Content_Encoding": "gzip"}, Kind.ENCODING_UNSUPPORTED),
        ({"X_Olla_Endpoint": "gpu-1"}, Kind.FORBIDDEN),
    ],
)
def test_inference_is_open_but_for_what_it_may_not_ask(
    headers: dict[str, str], kind: Kind | None
) -> None:
    """From anywhere; its own requests, encoded bodies and pinning from afar are refused."""
    assert allowed("/api/chat", **headers) is kind


def test_management_is_for_the_routers_own_machine() -> None:
    """However plain the request is."""
    assert allowed("/api/pull") is Kind.FORBIDDEN
    assert allowed("/api/pull", peer="127.0.0.1") is None
    assert allowed("/api/pull", peer="127.0.0.1", X_Forwarded_For="10.0.0.1") is Kind.FORBIDDEN
