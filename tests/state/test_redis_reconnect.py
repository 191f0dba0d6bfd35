"""A connection comes back by itself, and never tells its password."""

import asyncio
import os

import pytest

from olla.state.redis_reconnect import Connected, RedisConnection
from tests.redis_server import RedisServer, redis_server
from tests.state.sharing import Router, until

PASSWORD = "hunter%2F2@x"
WRITTEN = "hunter%252F2%40x"
"""The same in a URL."""


class Used:
    """What becomes of a connection."""

    def __init__(self, url: str, pause: float = 0.01) -> None:
        self.times = 0
        self.lost: list[str] = []
        self.keeper = RedisConnection(
            url, self.use, self.lost.append, pause=pause, longest=4 * pause
        )

    async def use(self, connection: Connected) -> None:
        """Until it breaks."""
        self.times += 1
        await connection.read_response()


async def test_a_lost_connection_is_made_again(redis: RedisServer) -> None:
    """As often as it is lost."""
    used = Used(redis.url)
    used.keeper.start()
    for time in (1, 2):
        await until(lambda time=time: used.times == time)
        redis.stop()
        await until(lambda: bool(used.lost))
        used.lost.clear()
        redis.restart()
    await until(lambda: used.times == 3)
    await used.keeper.stop()
    await used.keeper.stop()


async def test_pauses_grow_until_the_connection_is_good(redis: RedisServer) -> None:
    """Up to the longest; short again afterwards."""
    redis.stop()
    used = Used(redis.url)
    used.keeper.start()
    await until(lambda: len(used.lost) >= 4)
    assert used.keeper._pause == pytest.approx(0.04)
    used.keeper.used()
    assert used.keeper._pause == pytest.approx(0.01)
    await used.keeper.stop()


async def test_stopping_ends_an_attempt_to_connect(redis: RedisServer) -> None:
    """Also one that hangs."""
    redis.freeze()
    used = Used(redis.url.replace("redis://", "redis://:pass@"))
    used.keeper.start()
    async with asyncio.timeout(0.5):
        await asyncio.sleep(0)
        await used.keeper.stop()


async def test_a_password_lets_in_and_a_wrong_one_is_told_without_it() -> None:
    """Once, whatever Redis says of it."""
    with redis_server(PASSWORD) as server:
        there = f"127.0.0.1:{server.port}"
        good = Router(f"redis://:{WRITTEN}@{there}", "good")
        await good.shared.start()
        assert good.shared.up
        await good.shared.stop()
        for url in (f"redis://:wrong{WRITTEN}@{there}", f"redis://me:wrong{WRITTEN}@{there}/0"):
            bad = Router(url, "bad", pause=0.01)
            await bad.shared.start()
            used = Used(url)
            used.keeper.start()
            await until(lambda used=used: len(used.lost) >= 3)
            await used.keeper.stop()
            await bad.shared.stop()
            assert not bad.shared.up
            assert len(bad.log) == 1
            assert "hunter" not in repr(bad.log + used.lost)
            assert "Authentication" in bad.log[0]["error"]


def test_a_message_that_repeats_the_password_is_told_without_it() -> None:
    """However it is written."""
    keeper = Used(f"redis://:{WRITTEN}@127.0.0.1:1").keeper
    told = keeper._told(ValueError(f"AUTH {PASSWORD} or {WRITTEN}"))
    assert told == "ValueError: AUTH … or …"


async def test_a_socket_in_the_file_system_will_do(redis: RedisServer) -> None:
    """unix:// in place of a host."""
    used = Used(f"unix://{redis.socket}?db=1")
    used.keeper.start()
    await until(lambda: used.times == 1)
    await used.keeper.stop()
    assert os.path.exists(redis.socket)


@pytest.mark.parametrize("url", ["http://x", "redis://h:pw"])
def test_what_is_no_url_of_a_redis_is_refused(url: str) -> None:
    """When it is made, not when it is started."""
    with pytest.raises(ValueError):  # noqa: PT011 - the library's words
        Used(url)
