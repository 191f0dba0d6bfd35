"""Keys never appear in logs, metrics, errors, status pages, the store or upstream requests."""

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
ENDPOINT_KEY = "sk-somebody-elses-secret-for-the-endpoint"

SETTINGS = f"""
access:
  require_key: true
  keys: [{{name: ci, key: {STATIC}}}]
  tiers: {{standard: {{requests_per_minute: 1000}}, premium: {{requests_per_minute: 1}}}}
state: {{url: 'redis://:hunter2-password@127.0.0.1:1/0'}}
"""


def headers_with(secret: str) -> list[dict[str, str]]:
    """Return all headers that can carry a key."""
    return [{"Authorization": f"Bearer {secret}"}, {"X-API-Key": secret}, {"x-api-key": secret}]


async def responses_to_everything(fleet: Fleet, secrets: list[str]) -> list[str]:
    """Send every kind of request with every key; returns all response headers and bodies."""
    responses: list[str] = []
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
            for headers in headers_with(secret):
                for path, body in posts:
                    url = fleet.url + path
                    async with session.post(url, json=body, headers=headers) as response:
                        text = await response.text()
                        if path != f"/api/{secrets[0]}":
                            responses.append(f"{response.headers} {text}")
                for path in gets:
                    async with session.get(fleet.url + path, headers=headers) as response:
                        responses.append(f"{response.headers} {await response.text()}")
    return responses


def upstream(fleet: Fleet) -> str:
    """Return the targets and headers that the nodes received."""
    return "".join(
        f"{seen.target} {seen.headers}" for node in fleet.nodes.values() for seen in node.seen
    )


async def test_keys_appear_nowhere(make_fleet: MakeFleet, tmp_path: Path) -> None:
    """This covers valid, revoked and unknown keys in responses, log and store and at endpoints."""
    fleet = await make_fleet(SETTINGS)
    good, revoked = await new_key(fleet, 1), await new_key(fleet, 2)
    await fleet.app.access.store_service.revoke("2")
    limited = await new_key(fleet, 3, tier="premium")
    secrets = [good, revoked, limited, STATIC, UNKNOWN]
    responses = await responses_to_everything(fleet, secrets)
    await fleet.settled()
    usage_writer = fleet.app.access.store_service.usage_writer
    assert usage_writer is not None
    await usage_writer.flush()
    files = b"".join(each.read_bytes() for each in tmp_path.iterdir()).decode("latin-1")
    seen = upstream(fleet)
    assert MODEL in str(responses)
    assert "/api/chat" in seen
    for secret in [*secrets, "hunter2-password"]:
        assert not [each for each in responses if secret in each]
        assert secret not in files
        assert secret not in seen
        log = [line for line in fleet.log.getvalue().splitlines() if secret in line]
        # A client may put a key into a path; olla itself never does.
        assert [line for line in log if f"/api/{secret}" not in line] == []


async def test_forwarded_credentials_never_include_ollas_key(
    make_fleet: MakeFleet,
) -> None:
    """The client's key for the endpoint is forwarded; the key for olla beside it is not."""
    fleet = await make_fleet(SETTINGS)
    good = await new_key(fleet)
    for view in fleet.app.prober.snapshot.endpoints:
        with forwarding(view.spec):
            both: list[dict[str, str]] = [
                {"Authorization": f"Bearer {ENDPOINT_KEY}", "X-API-Key": good},
                {"Authorization": f"Bearer {good}", "X-API-Key": ENDPOINT_KEY},
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
    assert ENDPOINT_KEY in seen
    assert good not in seen


@contextmanager
def forwarding(spec: Any) -> Iterator[None]:
    """Forward client credentials to an endpoint."""
    import msgspec

    msgspec.structs.force_setattr(spec, "forward_authorization", True)
    yield
