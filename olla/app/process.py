"""A router as a process: signals, new settings while it runs, and its end."""

import asyncio
import gc
import signal
from collections.abc import Callable
from pathlib import Path

from olla.app.composition import App
from olla.settings import LoadedSettings, Problem, SettingsError
from olla.tasks import in_thread, spawn

__all__ = ["collect_seldom", "follow", "serve"]

_POLL = 2.0
"""Seconds between two looks at the configuration file."""


async def serve(
    loaded: LoadedSettings,
    *,
    welcome: Callable[[str], str] | None = None,
    reload: Callable[[], LoadedSettings] | None = None,
) -> None:
    """Run a router until SIGTERM or SIGINT; then drain, stop and return. A second one ends it at
    once.

    `welcome` makes words of the address once it listens, which go to where the log goes. `reload`
    reads the settings again: on SIGHUP, and when their file has changed.

    Raises:
        StartError: it cannot start.
        SettingsError: files with secrets cannot be read.
    """
    stopping, hangup = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stopping.set)
    if reload is not None:
        loop.add_signal_handler(signal.SIGHUP, hangup.set)
    app = App(loaded)
    try:
        await _serve(app, loaded, welcome, reload, stopping, hangup)
    finally:
        await app.close_logs()  # whatever has ended it is in them


async def _serve(
    app: App,
    loaded: LoadedSettings,
    welcome: Callable[[str], str] | None,
    reload: Callable[[], LoadedSettings] | None,
    stopping: asyncio.Event,
    hangup: asyncio.Event,
) -> None:
    loop = asyncio.get_running_loop()
    await app.start()
    collect_seldom()
    if welcome is not None:
        app.say(welcome(app.url))
    following = None
    if reload is not None:
        following = spawn(follow(app, reload, Path(loaded.source), hangup))
    await stopping.wait()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.remove_signal_handler(signum)  # whoever asks a second time does not want to wait
    if following is not None:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    await app.stop()


def collect_seldom() -> None:
    """Have the garbage collector walk less, and less often."""
    # What exists now lives as long as the process: keep the collector from walking it again.
    gc.collect()
    gc.freeze()
    # Nearly nothing that a request leaves behind is a cycle, so looking for them seldom will do.
    # With the default of 700 a full collection walks all open streams, some 20 ms for 5,000.
    gc.set_threshold(20_000, 20, 20)


async def follow(
    app: App,
    reload: Callable[[], LoadedSettings],
    file: Path,
    hangup: asyncio.Event,
    poll: float = _POLL,
) -> None:
    """Read the settings again when `hangup` is set, or when their file has changed and then
    stayed as it is for `poll` seconds: whoever writes it may not be done. Runs until cancelled.

    Settings with problems change nothing; the log has all of them.
    """
    known = seen = await in_thread(_stamp, file)
    while True:
        try:
            async with asyncio.timeout(poll):
                await hangup.wait()
        except TimeoutError:
            pass
        before, seen = seen, await in_thread(_stamp, file)
        if seen is None and before is not None:
            app.logger.warning("the configuration file is gone; it stays in force", file=str(file))
        if not hangup.is_set() and (seen == known or seen != before or seen is None):
            continue
        hangup.clear()
        known = seen
        try:
            if seen is not None and not seen[2]:
                # What a full disk leaves; taken literally, it asks for the defaults.
                raise SettingsError([Problem(str(file), 0, 0, "", "the file is empty")])
            # Reading a long file takes a while, and streams should not stand still meanwhile.
            await app.reload(await in_thread(reload))
        except SettingsError as error:
            app.metrics.reloaded(well=False)
            for problem in error.problems:
                app.logger.error("settings not loaded", problem=str(problem))
        except Exception as error:
            app.metrics.reloaded(well=False)
            app.logger.error("settings not loaded", exc_info=error)
        else:
            app.metrics.reloaded(well=True)


def _stamp(file: Path) -> tuple[int, int, int] | None:
    """What changes when a file does; None when there is none."""
    try:
        found = file.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_ino, found.st_size)
