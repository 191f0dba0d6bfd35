"""What one endpoint tells of itself is that endpoint's problem."""

import asyncio
import json
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olla.app import App
from olla.fleet.health import Health
from olla.fleet.model_names import canonical
from olla.probing import inventory, list_parsing
from olla.probing.list_parsing import MODELS_MAX, Listing
from olla.settings import parse
from tests.routers import Log, settings_text

WELL, ODD = "smollm:latest", "bigint:latest"
NINES = int("9" * 400)
WATCHED = ("/api/status", "/internal/status", "/internal/status/models", "/api/tags", "/api/ps")
WATCHED += ("/v1/models", "/olla/models", "/metrics", "/olla/management/models")


class TellingNode:
    """An Ollama that tells of its models what a test says."""

    def __init__(self, *models: dict[str, Any]) -> None:
        self.answers: dict[str, bytes] = {"/": b"Ollama is running"}
        self.tell("/api/version", {"version": "0.12.0"})
        self.tell("/api/ps", {"models": []})
        self.tell("/api/tags", {"models": list(models)})
        self.url = ""

    def tell(self, path: str, answer: Any) -> None:
        """Answer so from now on; bytes as they are."""
        text = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.answers[path] = text

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            length = head.lower().partition("content-length: ")[2].partition("\r\n")[0]
            await reader.readexactly(int(length or 0))
            body = self.answers.get(head.split()[1], b'{"response":"hi","done":true}')
            start = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
            writer.write(start + b"%d\r\nConnection: close\r\n\r\n" % len(body) + body)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def fleet(*nodes: TellingNode, extra: str = "") -> AsyncIterator[App]:
    """A router over such nodes, the first of which is `well` and the second `odd`."""
    servers = []
    for node in nodes:
        servers.append(await asyncio.start_server(node.serve, "127.0.0.1", 0))
        node.url = f"http://127.0.0.1:{servers[-1].sockets[0].getsockname()[1]}"
    urls = dict(zip(("well", "odd"), (node.url for node in nodes), strict=True))
    log = Log()
    app = log.app = App(parse(settings_text(urls, extra), {}), output=log)  # type: ignore[arg-type]
    app.log = log  # type: ignore[attr-defined]
    await app.start()
    await app.prober.first_pass()
    try:
        yield app
    finally:
        await app.stop()
        for server in servers:
            server.close()
            await server.wait_closed()


async def assert_well(app: App, session: aiohttp.ClientSession) -> None:
    """The healthy node serves, and every list and status of the fleet is there."""
    body = {"model": WELL, "prompt": "x", "stream": False}
    async with session.post(f"{app.url}/api/generate", json=body) as response:
        assert response.status == 200, await response.text()
    for path in WATCHED:
        async with session.get(app.url + path) as response:
            text = await response.text()
            assert response.status == 200, (path, text[:200])
            assert WELL in text or path in ("/api/ps", "/metrics", "/internal/status"), path
            if path != "/metrics":
                json.loads(text)
    view = app.prober.snapshot.by_name["well"]
    assert (view.health, view.last_error) == (Health.HEALTHY, None)


def logged(app: App, level: str) -> list[dict[str, Any]]:
    """The lines of the log of that level."""
    lines = [json.loads(line) for line in app.log.getvalue().splitlines()]  # type: ignore[attr-defined]
    return [line for line in lines if line.get("level") == level]


async def probed(app: App) -> None:
    """Both nodes were asked once more, the odd one first."""
    await app.prober.probed("odd")
    await app.prober.probed("well")


@pytest.mark.parametrize("from_the_start", [True, False])
@pytest.mark.parametrize(
    ("path", "entry"),
    [
        ("/api/tags", {"size": NINES}),
        ("/api/tags", {"size": -NINES, "digest": "d" * 70_000}),
        ("/api/tags", {"details": {"context_length": NINES, "family": ["x"] * 5_000}}),
        ("/api/tags", {"modified_at": "0001-01-01T00:00:00+23:59"}),
        ("/api/ps", {"size": NINES, "size_vram": NINES, "context_length": NINES}),
        ("/api/ps", {"expires_at": "9999-12-31T23:59:59-23:59"}),
    ],
)
async def test_an_odd_number_of_one_node_is_that_node_s_problem(
    path: str, entry: dict[str, Any], from_the_start: bool
) -> None:
    """From the start or while it runs: the other node stays healthy and serves, and all lists and
    states are told."""
    well, odd = TellingNode({"name": WELL, "size": 990}), TellingNode({"name": ODD})
    answer = {"models": [{"name": ODD, **entry}]}
    if from_the_start:
        odd.tell(path, answer)
    async with fleet(well, odd) as app, aiohttp.ClientSession() as session:
        odd.tell(path, answer)
        await probed(app)
        await assert_well(app, session)


def any_json(keys: list[str]) -> st.SearchStrategy[Any]:
    """Whatever JSON there is, with keys that mean something."""
    return st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-NINES, NINES)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=6)
        | st.sampled_from(["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "a\nb", ODD]),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(keys), inner, max_size=6)
        ),
        max_leaves=10,
    )


ENTRY = any_json(
    [
        *("name", "model", "id", "size", "size_vram", "digest", "details", "family", "families"),
        *("modified_at", "expires_at", "context_length", "capabilities", "created", "meta"),
    ]
)
ANSWERS = st.fixed_dictionaries(
    {
        "/api/tags": st.fixed_dictionaries({"models": st.lists(ENTRY, max_size=3)}) | ENTRY,
        "/api/ps": st.fixed_dictionaries({"models": st.lists(ENTRY, max_size=3)}) | ENTRY,
        "/api/version": st.fixed_dictionaries({"version": ENTRY}) | ENTRY,
    }
)


def test_whatever_one_node_tells_the_other_is_well() -> None:
    """Any JSON in the place of lists and versions: the other node serves, and the states and lists
    of the fleet are told."""
    well, odd = TellingNode({"name": WELL, "size": 990}), TellingNode({"name": ODD})

    async def hold(answers: dict[str, Any], app: App) -> None:
        for path, answer in answers.items():
            odd.tell(path, answer)
        await probed(app)
        async with aiohttp.ClientSession() as session:
            await assert_well(app, session)

    with asyncio.Runner() as runner:
        entered = fleet(well, odd)
        app = runner.run(entered.__aenter__())

        @settings(max_examples=25, deadline=None)
        @given(ANSWERS)
        def holds(answers: dict[str, Any]) -> None:
            runner.run(hold(answers, app))

        try:
            holds()
            assert not [
                line for line in logged(app, "error") if "olla" in line.get("exception", "")
            ]
        finally:
            runner.run(entered.__aexit__(None, None, None))


async def test_what_cannot_be_taken_in_marks_its_endpoint_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Should an error be left in what is made of an endpoint's data: it is logged with that
    endpoint's name, that endpoint gets no requests, and all others go on; when the data can be
    taken in, it is back."""
    read = list_parsing.models

    def unbounded(*told: Any, more: bool) -> Generator[None, None, Listing | None]:
        found = yield from read(*told, more=more)
        models = {} if found is None else found.models
        sizes = {1: NINES}  # only the odd node tells a size of 1
        return Listing(
            {
                name: msgspec.structs.replace(model, size=sizes.get(model.size or 0, model.size))
                for name, model in models.items()
            }
        )

    well, odd = TellingNode({"name": WELL}), TellingNode({"name": ODD}, {"name": WELL})
    async with fleet(well, odd) as app, aiohttp.ClientSession() as session:
        monkeypatch.setattr(inventory, "models", unbounded)
        odd.tell("/api/tags", {"models": [{"name": WELL}, {"name": "new", "size": 1}]})
        await probed(app)
        await probed(app)
        await assert_well(app, session)
        view = app.prober.snapshot.by_name["odd"]
        assert view.health is Health.UNHEALTHY
        assert "OverflowError" in (view.last_error or "")
        twins = app.dispatcher.twins
        assert [each.twin.name for each in twins.instances(canonical(WELL))] == ["well"]
        assert twins.instances(canonical("new")) == ()
        (line,) = logged(app, "error")
        assert (line["message"], line["endpoint"]) == ("endpoint data rejected", "odd")
        monkeypatch.undo()
        odd.tell("/api/tags", {"models": [{"name": WELL}, {"name": "new", "size": 2}]})
        await probed(app)
        assert app.prober.snapshot.by_name["odd"].health is Health.HEALTHY
        assert {each.twin.name for each in twins.instances(canonical(WELL))} == {"well", "odd"}
        assert not twins.faults


class Broken:
    """Whoever follows the fleet, with a mistake."""

    def changed(self, _: object) -> None:
        raise ZeroDivisionError("a mistake")


async def test_an_error_in_following_the_fleet_is_charged_to_no_endpoint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is logged, and the endpoint that was probed last stays healthy."""
    well, odd = TellingNode({"name": WELL}), TellingNode({"name": ODD})
    async with fleet(well, odd) as app:
        monkeypatch.setattr(app, "admission", Broken())
        await probed(app)
        views = app.prober.snapshot.endpoints
        assert {view.health for view in views} == {Health.HEALTHY}
        assert {line["message"] for line in logged(app, "error")} == {"fleet update failed"}
        monkeypatch.undo()


async def test_more_models_than_are_read_are_cut_and_that_is_said() -> None:
    """In the log once, and in the endpoint's state as long as it is so."""
    many = [{"name": f"m{number}"} for number in range(MODELS_MAX + 50)]
    well, odd = TellingNode({"name": WELL}), TellingNode(*many)
    async with fleet(well, odd) as app, aiohttp.ClientSession() as session:
        odd.tell("/api/tags", {"models": [*many, {"name": "one-more"}]})
        await probed(app)
        await assert_well(app, session)
        (line,) = [line for line in logged(app, "warning") if line["message"] == "model list cut"]
        assert (line["endpoint"], line["models_max"]) == ("odd", MODELS_MAX)
        async with session.get(f"{app.url}/internal/status/endpoints") as response:
            _, shown = (await response.json())["endpoints"]
        assert (shown["models"], shown["models_cut"]) == (MODELS_MAX, True)
        assert "only the first 10000 are known" in shown["reason"]
        odd.tell("/api/tags", {"models": many[:5]})
        await probed(app)
        async with session.get(f"{app.url}/internal/status/endpoints") as response:
            _, shown = (await response.json())["endpoints"]
        assert (shown["models"], shown["models_cut"], shown["reason"]) == (5, False, None)
