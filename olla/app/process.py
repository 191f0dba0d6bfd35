"""Run a router as a process: signals, reloads and shutdown."""

import asyncio
import gc
import signal
from collections.abc import Callable
from pathlib import Path

from olla.app.composition import App
from olla.settings import LoadedSettings, Problem, SettingsError
from olla.tasks import in_thread, spawn

__all__ = ["follow_settings", "serve", "tune_garbage_collector"]

_POLL = 2.0
"""Seconds between two checks of the configuration file."""


async def serve(
    loaded: LoadedSettings,
    *,
    banner: Callable[[str], str] | None = None,
    reload: Callable[[], LoadedSettings] | None = None,
) -> None:
    """Run a router until SIGTERM or SIGINT, then drain and stop it. A second signal ends the
    process immediately.

    `banner` returns a banner for the router's address, which is written to the log's stream once
    the router listens. `reload` loads the settings again; it is called on SIGHUP, and when the file
    has changed.

    Raises:
        StartError: the router cannot start.
        SettingsError: secret files cannot be read.
    """
    stopping, hangup = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stopping.set)
    if reload is not None:
        loop.add_signal_handler(signal.SIGHUP, hangup.set)
    app = App(loaded)
    try:
        await _serve(app, loaded, banner, reload, stopping, hangup)
    finally:
        await app.close_logs()  # last, so that they contain the reason for the end


async def _serve(
    app: App,
    loaded: LoadedSettings,
    banner: Callable[[str], str] | None,
    reload: Callable[[], LoadedSettings] | None,
    stopping: asyncio.Event,
    hangup: asyncio.Event,
) -> None:
    loop = asyncio.get_running_loop()
    await app.start()
    tune_garbage_collector()
    if banner is not None:
        app.write_to_log(banner(app.url))
    watcher = None
    if reload is not None:
        watcher = spawn(follow_settings(app, reload, Path(loaded.source), hangup))
    await stopping.wait()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.remove_signal_handler(signum)  # a second signal ends the process without draining
    if watcher is not None:
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
    await app.stop()


def tune_garbage_collector() -> None:
    """Make garbage collections cheaper and less frequent."""
    # All current objects live as long as the process: exclude them from later collections.
    gc.collect()
    gc.freeze()
    # Requests leave almost no reference cycles, so collections may be rare. With the default
    # threshold of 700, a full collection walks all open streams: about 20 ms for 5,000.
    gc.set_threshold(20_000, 20, 20)


async def follow_settings(
    app: App,
    reload: Callable[[], LoadedSettings],
    file: Path,
    hangup: asyncio.Event,
    poll: float = _POLL,
) -> None:
    """Reload the settings when `hangup` is set, or when the file has changed. Runs until cancelled.

    A changed file is loaded once it has been stable for `poll` seconds, because it may be
    incomplete before. Settings with problems change nothing; all problems are logged.
    """
    loaded = seen = await in_thread(_stamp, file)
    while True:
        try:
            async with asyncio.timeout(poll):
                await hangup.wait()
        except TimeoutError:
            pass
        before, seen = seen, await in_thread(_stamp, file)
        if seen is None and before is not None:
            app.logger.warning("configuration file missing, keeping its settings", file=str(file))
        if not hangup.is_set() and (seen == loaded or seen != before or seen is None):
            continue
        hangup.clear()
        loaded = seen
        try:
            if seen is not None and not seen[2]:
                # A full disk leaves an empty file. Taken literally, it would mean the defaults.
                raise SettingsError([Problem(str(file), 0, 0, "", "the file is empty")])
            # In a thread, because parsing a long file would stall the streams.
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
    """Return values that change when the file changes; None if it does not exist."""
    try:
        found = file.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_ino, found.st_size)
