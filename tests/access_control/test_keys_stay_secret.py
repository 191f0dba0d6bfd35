"""A key is for olla alone: it is in no log, metric, error, status, store or upstream request."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.access_control.conftest import CALLS, MODEL, MakeFleet, new_key
from tests.routers import Fleet

STATIC = "static-secret-of-the-continuous-integration"
UNKNOWN = "oa-" + "U" * 43
OTHERS = "sk-somebody-elses-secret-for-the-endpoint"

SETTINGS = f"""
access:
  require_key: true
  keys: [{{name: ci, key: {STATIC}}}]
  tiers: {{standard: {{requests_per_minute: 1000}}, premium: {{requests_per_minute: 1}}}}
state: {{url: 'redis://:hunter2-password@127.0.0.1:1/0'}}
"""


def shown_in(secret: str) -> list[dict[str, str]]:
    """All ways to show it."""
    return [{"Authorization": f"Bearer {secret}"}, {"X-API-Key": secret}, {"x-api-key": secret}]


async def everything_is_asked(fleet: Fleet, secrets: list[str]) -> list[str]:
    """What a client can read after asking for everything there is, with every key."""
    told: list[str] = []
    posts = [(path, body) for path, body in CALLS.values()]
    posts += [
        ("/api/chat", {"model": "nowhere", "messages": []}),
        ("/api/pull", {"model": "x"}),
        ("/api/generate", {"prompt": 1}),
        ("/nowhere", {}),
        (f"/api/{secrets[0]}", {}),
    ]
    gets = ["/api/tags", "/api/ps", "/v1/models", "/olla/models", "/metrics", "/version", "/"]
    gets += ["/internal/status", "/internal/status/endpoints", "/internal/stats/models"]
    gets += ["/internal/process", "/internal/health", "/v1/models/none"]
    async with aiohttp.ClientSession() as session:
        for secret in secrets:
            for headers in shown_in(secret):
                for path, body in posts:
                    url = fleet.url + path
                    async with session.post(url, json=body, headers=headers) as response:
                        text = await response.text()
                        if path != f"/api/{secrets[0]}":
                            told.append(f"{response.headers} {text}")
                for path in gets:
                    async with session.get(fleet.url + path, headers=headers) as response:
                        told.append(f"{response.headers} {await response.text()}")
    return told


def upstream(fleet: Fleet) -> str:
    """All that the nodes have seen."""
    return "".join(
        f"{seen.target} {seen.headers}" for node in fleet.nodes.values() for seen in node.seen
    )


async def test_no_key_is_told_to_anybody(make_fleet: MakeFleet, tmp_path: Path) -> None:
    """Good, revoked and unknown ones, in answers, log, store and to endpoints."""
    fleet = await make_fleet(SETTINGS)
    good, revoked = await new_key(fleet, 1), await new_key(fleet, 2)
    await fleet.app.access.store_service.revoke("2")
    limited = await new_key(fleet, 3, tier="premium")
    secrets = [good, revoked, limited, STATIC, UNKNOWN]
    told = await everything_is_asked(fleet, secrets)
    await fleet.settled()
    usage_writer = fleet.app.access.store_service.usage_writer
    assert usage_writer is not None
    await usage_writer.flush()
    files = b"".join(each.read_bytes() for each in tmp_path.iterdir()).decode("latin-1")
    seen = upstream(fleet)
    assert MODEL in str(told)
    assert "/api/chat" in seen
    for secret in [*secrets, "hunter2-password"]:
        assert not [each for each in told if secret in each]
        assert secret not in files
        assert secret not in seen
        log = [line for line in fleet.log.getvalue().splitlines() if secret in line]
        # What a client writes into a path is its own doing; no path of olla's has a key in it.
        assert [line for line in log if f"/api/{secret}" not in line] == []


async def test_an_endpoint_that_takes_credentials_never_gets_ollas_key(
    make_fleet: MakeFleet,
) -> None:
    """The client's own goes on, beside the key for olla."""
    fleet = await make_fleet(SETTINGS)
    good = await new_key(fleet)
    for view in fleet.app.prober.snapshot.endpoints:
        with forwarding(view.spec):
            both: list[dict[str, str]] = [
                {"Authorization": f"Bearer {OTHERS}", "X-API-Key": good},
                {"Authorization": f"Bearer {good}", "X-API-Key": OTHERS},
                {"Authorization": f"Bearer {good}"},
                {"Authorization": f"Bearer {good}", "X-API-Key": good},
                {"Authorization": f"Bearer {STATIC}", "X-API-Key": good},
            ]
            path, body = CALLS["native"]
            async with aiohttp.ClientSession() as session:
                for headers in both * 2:
                    answers: list[Any] = await asyncio.gather(
                        *(session.post(fleet.url + path, json=body, headers=headers) for _ in "12")
                    )
                    for answer in answers:
                        assert answer.status == 200
                        await answer.read()
                        answer.release()
    seen = upstream(fleet)
    assert OTHERS in seen
    assert good not in seen


@contextmanager
def forwarding(spec: Any) -> Iterator[None]:
    """Let an endpoint get what clients show."""
    import msgspec

    msgspec.structs.force_setattr(spec, "forward_authorization", True)
    yield
