"""Scripts are answered in order over one connection, or everybody is told that Redis is away."""

import asyncio
from time import monotonic

from olla.state.redis_pipeline import RedisPipeline
from olla.state.scripts import Script
from tests.redis_server import RedisServer
from tests.state.sharing import logging, until

ECHO = Script("return ARGV[1]")
BROKEN = Script("return redis.call('NONSENSE')")


async def linked(url: str, timeout: float = 1.0) -> tuple[RedisPipeline, list[str]]:
    """A link that was started, and how often it was there."""
    logger, _ = logging()
    returned: list[str] = []
    link = RedisPipeline(
        url,
        timeout=timeout,
        pause=0.02,
        returned=lambda: returned.append("there"),
        logger=logger,
    )
    await link.start()
    return link, returned


async def test_each_gets_its_own_answer(redis: RedisServer) -> None:
    """Many at once, and scripts that Redis has not seen before."""
    link, returned = await linked(redis.url)
    answers = [link.run(ECHO, [], [number]) for number in range(500)]
    assert all(answer is not None for answer in answers)
    assert [await answer for answer in answers] == [b"%d" % number for number in range(500)]
    assert returned == ["there"]
    await link.stop()


async def test_what_redis_refuses_is_an_answer_of_nothing(redis: RedisServer) -> None:
    """Then it is there again."""
    link, returned = await linked(redis.url)
    answer = link.run(BROKEN, [], [])
    assert answer is not None
    assert await answer is None
    await until(lambda: len(returned) == 2)
    assert link.up
    await link.stop()


async def test_a_frozen_redis_is_an_answer_of_nothing_and_then_none_is_awaited(
    redis: RedisServer,
) -> None:
    """Who asks while it is away gets no answer to wait for; late answers mean nothing."""
    link, returned = await linked(redis.url, timeout=0.1)
    redis.freeze()
    answer = link.run(ECHO, [], ["x"])
    assert answer is not None
    left = link.run(ECHO, [], ["x"])
    left.cancel()
    assert await answer is None
    assert link.run(ECHO, [], ["x"]) is None
    assert link.publish("c", "x") is None
    redis.thaw()
    await until(lambda: len(returned) == 2)
    again = link.run(ECHO, [], ["y"])
    assert await again == b"y"
    await link.stop()


async def test_no_more_wait_than_there_is_room_for(redis: RedisServer) -> None:
    """A bound, whatever the time-out."""
    link, _ = await linked(redis.url, timeout=30.0)
    redis.freeze()
    answers = [link.run(ECHO, [], ["x"]) for _ in range(10_010)]
    assert answers.count(None) == 10
    redis.thaw()
    assert await answers[9_999] == b"x"
    await link.stop()


async def test_stopping_waits_for_answers_no_longer_than_one_may_take(redis: RedisServer) -> None:
    """And then tells who still waits."""
    link, _ = await linked(redis.url)
    answer = link.run(ECHO, [], ["x"])
    await link.stop()
    assert await answer == b"x"
    link, _ = await linked(redis.url, timeout=0.1)
    redis.freeze()
    answer = link.run(ECHO, [], ["x"])
    async with asyncio.timeout(1.0):
        await link.stop()
        assert await answer is None


async def test_a_loop_that_stood_still_is_not_taken_for_a_redis_that_is_away(
    redis: RedisServer,
) -> None:
    """The answer was there in time, and nobody could read it."""
    link, returned = await linked(redis.url, timeout=0.2)
    redis.freeze()
    answer = link.run(ECHO, [], ["x"])
    await asyncio.sleep(0)
    redis.thaw()
    until_then = monotonic() + 0.5
    while monotonic() < until_then:
        pass
    assert await answer == b"x"
    assert returned == ["there"]
    await link.stop()


async def test_a_server_that_is_no_redis_is_away() -> None:
    """Whatever it says."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"*x\r\n$nonsense\r\n")
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        link, returned = await linked(f"redis://127.0.0.1:{port}")
        assert not link.up
        assert returned == []
        await link.stop()
