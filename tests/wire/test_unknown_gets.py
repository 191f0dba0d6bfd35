"""GET requests for paths that olla does not know, from callers without a key."""

import pytest

from olla.access.keys import DEFAULT_RIGHTS
from olla.access.policy import AccessPolicy
from tests.wire.conftest import MakeRouter, split

KEYLESS = AccessPolicy(anonymous=DEFAULT_RIGHTS)
BODY = b'{"forward_sleep_time":100}'

CHANGES = [
    # SGLang registers all of these for GET and POST.
    *(
        ("sglang", f"/olla/sglang/{path}")
        for path in (
            *("slow_down", "configure_logging", "open_session", "close_session", "freeze_gc"),
            *("clear_hicache_storage_backend", "get_weights_by_name", "weights_checker"),
            *("flush_cache", "release_memory_occupation", "start_profile", "pause_generation"),
        )
    ),
    ("lmdeploy", "/olla/lmdeploy/terminate"),
    ("llamacpp", "/olla/llamacpp/cors-proxy?url=http://169.254.169.254/"),
    ("llamacpp", "/olla/llamacpp/props?model=big"),
    ("litellm", "/olla/litellm/health"),
    ("litellm", "/olla/litellm/key/list"),
    ("openai-compatible", "/olla/openai-compatible/load"),
    ("vllm", "/olla/vllm/flush_cache/"),
    ("ollama", "/olla/ollama/api/new"),
    ("ollama", "/api/new"),
]


def get(target: str, body: bytes = b"", method: str = "GET") -> bytes:
    """A GET, which may have a body."""
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    head = f"{method} {target} HTTP/1.1\r\nHost: olla\r\n{length}Connection: close\r\n\r\n"
    return head.encode() + body


@pytest.mark.parametrize("body", [b"", BODY], ids=["without a body", "with a body"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(("profile", "target"), CHANGES)
async def test_a_get_that_is_not_known_to_read_needs_the_right_to_manage(
    make_router: MakeRouter, profile: str, target: str, method: str, body: bytes
) -> None:
    """The endpoint gets no such request, and the error says which right helps."""
    router = await make_router(profile=profile, policy=KEYLESS)
    head, text = split(await router.exchange(get(target, body, method)))
    assert head.startswith(b"HTTP/1.1 403 ")
    assert router.endpoints[0].requests == []
    if method == "GET":
        path = target.partition("?")[0].removeprefix(f"/olla/{profile}").encode()
        assert b"'GET %b' needs the right 'manage'" % path in text
        assert b"olla keys create --operation manage" in text
        assert b"access.anonymous_operations" in text


@pytest.mark.parametrize(
    ("profile", "target"),
    [
        *(("sglang", f"/olla/sglang/{path}") for path in ("get_model_info", "server_info", "")),
        ("vllm", "/olla/vllm/metrics"),
        ("vllm", "/olla/vllm/load"),
        ("llamacpp", "/olla/llamacpp/props"),
        ("llamacpp", "/olla/llamacpp/slots"),
        ("litellm", "/olla/litellm/health/readiness"),
        ("lemonade", "/olla/lemonade/api/v1/system-info"),
    ],
)
async def test_a_get_that_is_known_to_read_needs_no_key(
    make_router: MakeRouter, profile: str, target: str
) -> None:
    """It is a list like others, unless it has a body: what that asks for is not known."""
    router = await make_router(profile=profile, policy=KEYLESS)
    assert (await router.exchange(get(target))).startswith(b"HTTP/1.1 200 ")
    assert len(router.endpoints[0].requests) == 1
    assert (await router.exchange(get(target, BODY))).startswith(b"HTTP/1.1 403 ")
    assert len(router.endpoints[0].requests) == 1


async def test_the_right_to_manage_passes_any_get(make_router: MakeRouter) -> None:
    """A caller with the right reaches paths that only the server knows, body included."""
    router = await make_router(profile="sglang")
    sent = get("/olla/sglang/slow_down", BODY)
    assert (await router.exchange(sent)).startswith(b"HTTP/1.1 200 ")
    assert router.endpoints[0].requests[0].startswith(b"GET /slow_down ")
    assert router.endpoints[0].requests[0].endswith(BODY)
