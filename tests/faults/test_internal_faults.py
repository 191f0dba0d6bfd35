"""After a fault in olla's code the client gets an error, and every resource is released."""

import asyncio
import json

import pytest

from olla.access.keyring import Keyring
from olla.access.keys import KEY_PREFIX
from olla.access.limit import Limit, LimitKind
from olla.access.limiter import Account, Charge
from olla.access.policy import AccessPolicy
from olla.proxy.exchange.attempt import Timeouts
from tests.gates import open_authenticator
from tests.waiting import until
from tests.wire.conftest import MODEL, MakeRouter, Router, answer, post, split

BODY = json.dumps({"model": MODEL, "stream": False, "prompt": "p"}).encode()
LONG = json.dumps({"model": MODEL, "stream": False, "prompt": "p" * 100_000}).encode()
UNKNOWN = f"Authorization: Bearer {KEY_PREFIX}{'0' * 40}"


async def broken(*_: object) -> None:
    """Fail as an unexpected fault would, in a coroutine."""
    raise RuntimeError("a fault in olla")


def broken_now(*_: object) -> None:
    """Fail as an unexpected fault would, in a plain function."""
    raise RuntimeError("a fault in olla")


async def assert_500(router: Router, request: bytes, logged: str | None = None) -> None:
    """Check that the client gets a 500 in its dialect, the log has the traceback, and nothing
    leaks."""
    async with asyncio.timeout(10):
        head, body = split(await router.exchange(request))
    assert head.startswith(b"HTTP/1.1 500 ")
    assert b"its log has more" in body
    assert json.loads(body)["error"]
    assert "a fault in olla" in (router.log.getvalue() if logged is None else logged)
    assert router.dispatcher.leases == 0
    assert router.downstream.active == 0
    assert router.services.body_budget.taken == 0
    assert router.records[-1].status == 500
    router.log.seek(0)
    router.log.truncate()


@pytest.mark.parametrize("body", [BODY, LONG], ids=["short", "long"])
async def test_a_fault_while_connecting_is_a_500(
    make_router: MakeRouter, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    """The lease is released, and the next request is served."""
    router = await make_router(1)
    monkeypatch.setattr(router.pool._resolver, "addresses", broken)
    await assert_500(router, post("/api/generate", body))
    await assert_500(router, post("/v1/completions", body))
    monkeypatch.undo()
    head, _ = split(await router.exchange(post("/api/generate", body)))
    assert head.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("body", [BODY, LONG], ids=["short", "long"])
async def test_a_fault_while_a_key_is_looked_up_is_a_500(
    make_router: MakeRouter, body: bytes
) -> None:
    """This holds on both request paths."""
    router = await make_router(1)
    router.services.authenticator.renew = broken
    await assert_500(router, post("/api/generate", body, UNKNOWN))


async def test_a_fault_while_shared_limits_are_charged_is_a_500(make_router: MakeRouter) -> None:
    """The limits are unknown, so the request is not forwarded."""
    router = await make_router(1)
    authenticator = router.services.authenticator = open_authenticator(
        AccessPolicy(categories={"generation": (Limit("g", LimitKind.REQUESTS, 10, 10),)}),
        Keyring(),
    )

    class Shared:
        async def charge(self, account: Account, tokens: int) -> Charge:
            await broken()
            raise AssertionError

        def settle(self, charge: Charge, tokens: int) -> None:
            raise AssertionError("nothing was charged")

    authenticator.shared = Shared()
    loop = asyncio.get_running_loop()
    reported: list[str] = []
    loop.set_exception_handler(lambda _, context: reported.append(repr(context["exception"])))
    request = post("/api/generate", BODY)
    await assert_500(router, request, "a fault in olla")
    assert len(reported) == 1
    assert router.endpoints[0].requests == []


async def test_a_fault_while_authorizing_is_a_500(make_router: MakeRouter) -> None:
    """This holds on the fast path too, where the fault is not raised in a task."""
    router = await make_router(1)

    class Broken:
        def __getattr__(self, name: str) -> None:
            broken_now()

    router.services.authenticator._policy = Broken()  # type: ignore[assignment]
    await assert_500(router, post("/api/generate", BODY, UNKNOWN))


async def test_a_fault_in_a_timeout_handler_is_a_500(
    make_router: MakeRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client of an endpoint that does not answer does not wait forever."""
    router = await make_router(1, timeouts=Timeouts(first_byte=0.1))

    async def hang(_: bytes, reader: asyncio.StreamReader, __: object) -> None:
        await reader.read()

    router.endpoints[0].script = hang
    monkeypatch.setattr("olla.proxy.exchange.attempt.Failure", broken_now)
    await assert_500(router, post("/api/generate", BODY))
    await router.endpoints[0].lost.wait()


async def test_a_fault_after_the_client_hung_up_releases_nothing_twice(
    make_router: MakeRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request is recorded once, with status 499."""
    router = await make_router(1)
    connecting, may_fail = asyncio.Event(), asyncio.Event()

    async def late(*_: object) -> None:
        connecting.set()
        try:
            await may_fail.wait()
        except asyncio.CancelledError:
            raise RuntimeError("a fault while it is cancelled") from None

    monkeypatch.setattr(router.pool._resolver, "addresses", late)
    _, writer = await asyncio.open_connection("127.0.0.1", router.port)
    writer.write(post("/api/generate", BODY))
    await connecting.wait()
    writer.close()
    await until(lambda: not router.downstream.active)
    monkeypatch.undo()
    assert [record.status for record in router.records] == [499]
    router.endpoints[0].script = answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    head, _ = split(await router.exchange(post("/api/generate", BODY)))
    assert head.startswith(b"HTTP/1.1 200 ")
