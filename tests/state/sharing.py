"""Routers that share limits, as far as that goes."""

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from structlog.testing import LogCapture

from olla.access.limit import Limit, LimitKind
from olla.access.limiter import Account, Limiter
from olla.clock import SystemClock
from olla.state.shared_limits import SharedLimits

__all__ = ["CONCURRENT", "DAILY", "REQUESTS", "TOKENS", "Router", "logging", "until"]

REQUESTS = Limit("tiers.t", LimitKind.REQUESTS, 100, 120)
TOKENS = Limit("tiers.t", LimitKind.TOKENS, 600, 1000)
CONCURRENT = Limit("tiers.t", LimitKind.CONCURRENT, 4)
DAILY = Limit("tiers.t", LimitKind.DAILY, 1000)


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for something at the edge of the process, which tells nobody when it is so."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def logging() -> tuple[Any, list[Any]]:
    """A logger, and what it was told."""
    capture = LogCapture()
    logger = structlog.wrap_logger(
        None,
        processors=[capture],
        wrapper_class=structlog.make_filtering_bound_logger(0),
    ).bind()
    return logger, capture.entries


class Router:
    """One router; `log` is what it said."""

    def __init__(self, url: str, name: str, **options: Any) -> None:
        self.clock = options.pop("clock", SystemClock())
        self.limiter = Limiter()
        logger, self.log = logging()
        self.heard: list[str] = []
        options = {"pause": 0.05, "timeout": 1.0} | options
        self.shared = SharedLimits(
            url, self.limiter, self.clock, logger=logger, name=name, **options
        )
        self.shared.on_announced = self.heard.append

    def account(self, *limits: Limit, caller: str = "key:1") -> Account:
        """A caller's account."""
        now, wall = self.clock.now(), self.clock.wall()
        return self.limiter.account(caller, "inference", limits, now, wall)
