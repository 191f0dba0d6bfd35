"""Files that hang (on a network file system whose server is down) do not block requests."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import pytest

from olla.app import App
from olla.app.process import follow_settings
from olla.settings import load, parse
from tests.routers import Fleet, settings_text
from tests.waiting import until

MODEL = "llama3.2:latest"
NODES = {"a": (MODEL,)}
UNKNOWN = {"Authorization": "Bearer oa-0000000000000000000000000000000000000000"}


class HangingCall:
    """A file operation that hangs until it is released."""

    def __init__(self) -> None:
        self.called = threading.Event()
        self.released = threading.Event()

    def before(self, call: Callable[..., object], name: str) -> Callable[..., object]:
        """Wrap a call, so that it hangs first if its file has this name."""

        def hang(path: Path, *arguments: object, **named: object) -> object:
            if path.name == name:
                self.called.set()
                # Bounded, so that a blocked event loop fails the test instead of hanging it.
                self.released.wait(15)
            return call(path, *arguments, **named)

        return hang


@pytest.fixture
def hanging() -> Iterator[HangingCall]:
    """Provide a call that hangs until the test ends."""
    made = HangingCall()
    yield made
    made.released.set()


async def assert_serves_during(
    hanging: HangingCall, fleet: Fleet, session: aiohttp.ClientSession
) -> None:
    """Check that the router answers while the call hangs."""
    async with asyncio.timeout(12):
        await until(hanging.called.is_set)
        body = {"model": MODEL, "prompt": "x", "stream": False, "options": {"num_predict": 1}}
        async with session.post(f"{fleet.url}/api/generate", json=body) as response:
            assert response.status == 200
    assert not hanging.released.is_set()


async def test_a_hanging_configuration_file_does_not_block_requests(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hanging: HangingCall
) -> None:
    """The check for changes hangs; requests are served."""
    file = tmp_path / "olla.yaml"
    async with Fleet(NODES) as fleet, aiohttp.ClientSession() as session:
        file.write_text(settings_text({"a": fleet.nodes["a"].url}))
        monkeypatch.setattr(Path, "stat", hanging.before(Path.stat, "olla.yaml"))
        following = asyncio.create_task(
            follow_settings(fleet.app, lambda: load(file, {}), file, asyncio.Event(), poll=0.01)
        )
        await assert_serves_during(hanging, fleet, session)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        monkeypatch.undo()


async def test_a_hanging_secret_file_does_not_block_requests(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hanging: HangingCall
) -> None:
    """A token file is read again on each reload."""
    token = tmp_path / "token"
    token.write_text("secret")
    async with Fleet(NODES) as fleet, aiohttp.ClientSession() as session:
        text = settings_text({"b": fleet.nodes["a"].url}).replace(
            "type: ollama,", f"type: ollama, auth: {{type: bearer, token_file: {token}}},"
        )
        loaded = parse(text, {})
        monkeypatch.setattr(Path, "open", hanging.before(Path.open, "token"))
        reloading = asyncio.create_task(fleet.app.reload(loaded))
        await assert_serves_during(hanging, fleet, session)
        hanging.released.set()
        await reloading
        monkeypatch.undo()
        assert set(fleet.app.prober.snapshot.by_name) == {"b"}


@pytest.mark.parametrize("call", ["stat", "exists"])
async def test_a_hanging_store_file_does_not_block_requests(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hanging: HangingCall, call: str
) -> None:
    """The file is checked every second; an unknown key triggers a check for its existence."""
    monkeypatch.setenv("OLLA_HOME", str(tmp_path))  # no other test created a store here
    store = f"sqlite:///{tmp_path / 'olla.db'}"
    extra = f"store: {{url: '{store}'}}\n" if call == "stat" else ""
    async with Fleet(NODES, extra) as fleet, aiohttp.ClientSession() as session:
        monkeypatch.setattr(Path, call, hanging.before(getattr(Path, call), "olla.db"))
        asking = asyncio.create_task(ask_with_an_unknown_key(fleet.app, session))
        await assert_serves_during(hanging, fleet, session)
        hanging.released.set()
        assert await asking == 401
        monkeypatch.undo()


async def ask_with_an_unknown_key(app: App, session: aiohttp.ClientSession) -> int:
    """Send a request with an unknown key; return the response status."""
    body = {"model": MODEL, "prompt": "x", "stream": False}
    async with session.post(f"{app.url}/api/generate", json=body, headers=UNKNOWN) as response:
        return response.status
