"""A real browser for tests: headless, without a profile, and with no way to the internet."""

import asyncio
import json
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

__all__ = ["Site", "browse", "browser_binary"]

_BINARIES = ("chromium", "chromium-browser", "google-chrome")
_SECONDS = 60.0
_FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--no-first-run", "--no-default-browser-check", "--no-proxy-server"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    # Names that tests make up lead to this machine, all others nowhere.
    "--host-resolver-rules=MAP *.test 127.0.0.1, MAP localhost 127.0.0.1, "
    "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


def browser_binary() -> str:
    """Where the browser is. Skips the test where there is none, unless OLLA_TEST_REQUIRE names
    chromium: then it fails."""
    binary = next((found for found in map(shutil.which, _BINARIES) if found), None)
    if binary is not None:
        return binary
    told = "needs Chromium: apt install chromium"
    if "chromium" in os.environ.get("OLLA_TEST_REQUIRE", ""):
        pytest.fail(told)
    pytest.skip(told)


class Site:
    """A web site with one page, which reports what it has found out.

    The page's script has `report(value)`, which ends the visit, and `tell(path)`, which sets the
    event of that name here.
    """

    def __init__(self, script: str, reporter: "Site | None" = None) -> None:
        """`reporter` takes the reports in place of this site, when the page outlives it."""
        self._script = script
        self._reporter = reporter
        self.reported: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.told = asyncio.Event()
        self.port = 0

    async def __aenter__(self) -> "Site":
        self._runner = web.ServerRunner(web.Server(self._answer), shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Serve nothing any more."""
        await self._runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = {"Access-Control-Allow-Origin": "*"}
        if request.path == "/report":
            if not self.reported.done():
                self.reported.set_result(json.loads(await request.text()))
            return web.Response(headers=headers)
        if request.path == "/told":
            self.told.set()
            return web.Response(headers=headers)
        if request.path != "/":
            return web.Response(status=404, headers=headers)
        to = f"http://127.0.0.1:{(self._reporter or self).port}"
        script = f"""
            const report = (value) => fetch("{to}/report",
                {{method: "POST", body: JSON.stringify(value)}});
            const tell = () => fetch("{to}/told");
            const pause = (ms) => new Promise((done) => setTimeout(done, ms));
            {self._script}
            main().then(report, (error) => report({{broken: String(error)}}));
        """
        page = f"<!doctype html><title>t</title><script type=module>{script}</script>"
        return web.Response(text=page, content_type="text/html")


@asynccontextmanager
async def browse(url: str) -> AsyncIterator[None]:
    """A browser that shows a page for as long as the context lasts."""
    binary = browser_binary()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        process = await asyncio.create_subprocess_exec(
            binary,
            *_FLAGS,
            f"--user-data-dir={folder}",
            url,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(_SECONDS):
                yield
        finally:
            # It has children of its own, which are in its group and in no other.
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
