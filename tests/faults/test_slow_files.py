"""Files that do not answer (a network file system whose server has gone) hold no request up."""

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

MODEL = "llama3.2:latest"
NODES = {"a": (MODEL,)}
UNKNOWN = {"Authorization": "Bearer oa-0000000000000000000000000000000000000000"}


class Hanging:
    """A call about one file that hangs until it is let go."""

    def __init__(self) -> None:
        self.called = threading.Event()
        self.let_go = threading.Event()

    def before(self, call: Callable[..., object], name: str) -> Callable[..., object]:
        """The call, after a while where it is about a file of that name."""

        def hang(path: Path, *arguments: object, **named: object) -> object:
            if path.name == name:
                self.called.set()
                # So that a loop which is held up fails the test, and does not hang it.
                self.let_go.wait(15)
            return call(path, *arguments, **named)

        return hang


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    """A call that does not come back before the test's end."""
    made = Hanging()
    yield made
    made.let_go.set()


async def answers_while(hanging: Hanging, fleet: Fleet, session: aiohttp.ClientSession) -> None:
    """The router answers after the call was begun and before it has come back."""
    async with asyncio.timeout(12):
        while not hanging.called.is_set():
            await asyncio.sleep(0.01)
        body = {"model": MODEL, "prompt": "x", "stream": False, "options": {"num_predict": 1}}
        async with session.post(f"{fleet.url}/api/generate", json=body) as response:
            assert response.status == 200
    assert not hanging.let_go.is_set()


async def test_a_configuration_file_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hanging: Hanging
) -> None:
    """Looking whether it has changed takes for ever; everything else goes on."""
    file = tmp_path / "olla.yaml"
    async with Fleet(NODES) as fleet, aiohttp.ClientSession() as session:
        file.write_text(settings_text({"a": fleet.nodes["a"].url}))
        monkeypatch.setattr(Path, "stat", hanging.before(Path.stat, "olla.yaml"))
        following = asyncio.create_task(
            follow_settings(fleet.app, lambda: load(file, {}), file, asyncio.Event(), poll=0.01)
        )
        await answers_while(hanging, fleet, session)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        monkeypatch.undo()


async def test_a_secret_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hanging: Hanging
) -> None:
    """A token's file is read again with the settings."""
    token = tmp_path / "token"
    token.write_text("secret")
    async with Fleet(NODES) as fleet, aiohttp.ClientSession() as session:
        text = settings_text({"b": fleet.nodes["a"].url}).replace(
            "type: ollama,", f"type: ollama, auth: {{type: bearer, token_file: {token}}},"
        )
        loaded = parse(text, {})
        monkeypatch.setattr(Path, "open", hanging.before(Path.open, "token"))
        reloading = asyncio.create_task(fleet.app.reload(loaded))
        await answers_while(hanging, fleet, session)
        hanging.let_go.set()
        await reloading
        monkeypatch.undo()
        assert set(fleet.app.prober.snapshot.by_name) == {"b"}


@pytest.mark.parametrize("call", ["stat", "exists"])
async def test_a_store_whose_file_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hanging: Hanging, call: str
) -> None:
    """It is looked after every second; a key that is not known makes it be looked for."""
    monkeypatch.setenv("OLLA_HOME", str(tmp_path))  # where no other test has made one
    store = f"sqlite:///{tmp_path / 'olla.db'}"
    extra = f"store: {{url: '{store}'}}\n" if call == "stat" else ""
    async with Fleet(NODES, extra) as fleet, aiohttp.ClientSession() as session:
        monkeypatch.setattr(Path, call, hanging.before(getattr(Path, call), "olla.db"))
        asking = asyncio.create_task(ask_with_an_unknown_key(fleet.app, session))
        await answers_while(hanging, fleet, session)
        hanging.let_go.set()
        assert await asking == 401
        monkeypatch.undo()


async def ask_with_an_unknown_key(app: App, session: aiohttp.ClientSession) -> int:
    """The status of the answer."""
    body = {"model": MODEL, "prompt": "x", "stream": False}
    async with session.post(f"{app.url}/api/generate", json=body, headers=UNKNOWN) as response:
        return response.status
