"""Announcements reach the others, and who may have missed one is told."""

import asyncio

from olla.state.redis_pubsub import CHANNEL, RedisSubscriber
from tests.redis_server import RedisServer
from tests.state.sharing import until


async def listening(redis: RedisServer, name: str, count: int = 1) -> tuple[RedisSubscriber, list]:
    """A subscription that stands, and what it hears."""
    heard: list[str] = []
    one = RedisSubscriber(redis.url, name, heard.append, pause=0.02)
    await one.start()
    await until(lambda: f":{count}\r\n" in redis.ask("PUBSUB", "NUMSUB", CHANNEL))
    return one, heard


async def test_what_another_says_is_heard_and_what_oneself_says_is_not(
    redis: RedisServer,
) -> None:
    """By the name before it; words may have blanks, and be no text."""
    one, heard = await listening(redis, "one")
    for text in ("one key:1 revoked", "two key:2 revoked now", "onetwo ", "two \udcff"):
        with_any = text.encode(errors="surrogateescape").decode("latin-1")
        redis.ask("PUBLISH", CHANNEL, with_any)
    await until(lambda: len(heard) == 3)
    assert heard[:2] == ["key:2 revoked now", ""]
    await one.stop()


async def test_after_every_reconnect_something_may_have_been_missed(redis: RedisServer) -> None:
    """But not after the first connect."""
    one, heard = await listening(redis, "one")
    assert heard == []
    for times in (1, 2):
        redis.ask("CLIENT", "KILL", "TYPE", "pubsub")
        await until(lambda times=times: heard == [""] * times)
    await one.stop()


async def test_a_silent_connection_is_asked_whether_it_lives(
    redis: RedisServer, monkeypatch: object
) -> None:
    """One that lives is kept, one that does not is made again."""
    monkeypatch.setattr("olla.state.redis_pubsub._QUIET_SECONDS", 0.05)
    one, heard = await listening(redis, "one")
    answered = asyncio.get_running_loop().time() + 0.4
    await until(lambda: asyncio.get_running_loop().time() > answered)
    assert heard == []
    redis.freeze()
    frozen = asyncio.get_running_loop().time() + 0.4
    await until(lambda: asyncio.get_running_loop().time() > frozen)
    redis.thaw()
    await until(lambda: heard == [""])
    await one.stop()
