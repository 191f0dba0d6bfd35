"""Malformed data from one endpoint affects that endpoint only."""

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
STATUS_PATHS = (
    "/api/status",
    "/internal/status",
    "/internal/status/models",
    "/api/tags",
    "/api/ps",
)
STATUS_PATHS += ("/v1/models", "/olla/models", "/metrics", "/olla/management/models")


class ListingNode:
    """An Ollama server whose lists and versions are set by the test."""

    def __init__(self, *models: dict[str, Any]) -> None:
        self.answers: dict[str, bytes] = {"/": b"Ollama is running"}
        self.set_answer("/api/version", {"version": "0.12.0"})
        self.set_answer("/api/ps", {"models": []})
        self.set_answer("/api/tags", {"models": list(models)})
        self.url = ""

    def set_answer(self, path: str, answer: Any) -> None:
        """Set the response for a path; bytes are sent unchanged."""
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
async def fleet(*nodes: ListingNode, extra: str = "") -> AsyncIterator[App]:
    """Run a router over the nodes; the first is named `well`, the second `odd`."""
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


async def assert_healthy(app: App, session: aiohttp.ClientSession) -> None:
    """Check that the healthy node serves and that every list and status page responds."""
    body = {"model": WELL, "prompt": "x", "stream": False}
    async with session.post(f"{app.url}/api/generate", json=body) as response:
        assert response.status == 200, await response.text()
    for path in STATUS_PATHS:
        async with session.get(app.url + path) as response:
            text = await response.text()
            assert response.status == 200, (path, text[:200])
            assert WELL in text or path in ("/api/ps", "/metrics", "/internal/status"), path
            if path != "/metrics":
                json.loads(text)
    view = app.prober.snapshot.by_name["well"]
    assert (view.health, view.last_error) == (Health.HEALTHY, None)


def logged(app: App, level: str) -> list[dict[str, Any]]:
    """Return the log lines of a level."""
    lines = [json.loads(line) for line in app.log.getvalue().splitlines()]  # type: ignore[attr-defined]
    return [line for line in lines if line.get("level") == level]


async def probed(app: App) -> None:
    """Probe both nodes once more, the odd one first."""
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
async def test_an_out_of_range_value_affects_its_node_only(
    path: str, entry: dict[str, Any], from_the_start: bool
) -> None:
    """Whether the data is malformed from the start or only later, the other node stays healthy and
    serves, and all lists and status pages respond."""
    well, odd = ListingNode({"name": WELL, "size": 990}), ListingNode({"name": ODD})
    answer = {"models": [{"name": ODD, **entry}]}
    if from_the_start:
        odd.set_answer(path, answer)
    async with fleet(well, odd) as app, aiohttp.ClientSession() as session:
        odd.set_answer(path, answer)
        await probed(app)
        await assert_healthy(app, session)


def json_values(keys: list[str]) -> st.SearchStrategy[Any]:
    """Generate JSON values, with these keys in objects."""
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


ENTRY = json_values(
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


def test_arbitrary_json_from_one_node_leaves_the_other_healthy() -> None:
    """With any JSON in place of its lists and version, the other node serves, and all lists and
    status pages respond."""
    well, odd = ListingNode({"name": WELL, "size": 990}), ListingNode({"name": ODD})

    async def check(answers: dict[str, Any], app: App) -> None:
        for path, answer in answers.items():
            odd.set_answer(path, answer)
        await probed(app)
        async with aiohttp.ClientSession() as session:
            await assert_healthy(app, session)

    with asyncio.Runner() as runner:
        entered = fleet(well, odd)
        app = runner.run(entered.__aenter__())

        @settings(max_examples=25, deadline=None)
        @given(ANSWERS)
        def holds(answers: dict[str, Any]) -> None:
            runner.run(check(answers, app))

        try:
            holds()
            assert not [
                line for line in logged(app, "error") if "olla" in line.get("exception", "")
            ]
        finally:
            runner.run(entered.__aexit__(None, None, None))


async def test_data_that_cannot_be_processed_excludes_its_endpoint_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If processing an endpoint's data raises, the error is logged with the endpoint's name and
    that endpoint gets no requests; the others serve. Once its data is valid, it is used again."""
    read = list_parsing.models

    def unbounded(*arguments: Any, more: bool) -> Generator[None, None, Listing | None]:
        found = yield from read(*arguments, more=more)
        models = {} if found is None else found.models
        sizes = {1: NINES}  # only the odd node reports a size of 1
        return Listing(
            {
                name: msgspec.structs.replace(model, size=sizes.get(model.size or 0, model.size))
                for name, model in models.items()
            }
        )

    well, odd = ListingNode({"name": WELL}), ListingNode({"name": ODD}, {"name": WELL})
    async with fleet(well, odd) as app, aiohttp.ClientSession() as session:
        monkeypatch.setattr(inventory, "models", unbounded)
        odd.set_answer("/api/tags", {"models": [{"name": WELL}, {"name": "new", "size": 1}]})
        await probed(app)
        await probed(app)
        await assert_healthy(app, session)
        view = app.prober.snapshot.by_name["odd"]
        assert view.health is Health.UNHEALTHY
        assert "OverflowError" in (view.last_error or "")
        twins = app.dispatcher.twins
        assert [each.twin.name for each in twins.instances(canonical(WELL))] == ["well"]
        assert twins.instances(canonical("new")) == ()
        (line,) = logged(app, "error")
        assert (line["message"], line["endpoint"]) == ("endpoint data rejected", "odd")
        monkeypatch.undo()
        odd.set_answer("/api/tags", {"models": [{"name": WELL}, {"name": "new", "size": 2}]})
        await probed(app)
        assert app.prober.snapshot.by_name["odd"].health is Health.HEALTHY
        assert {each.twin.name for each in twins.instances(canonical(WELL))} == {"well", "odd"}
        assert not twins.faults


class Broken:
    """A listener for fleet changes that always raises."""

    def changed(self, _: object) -> None:
        raise ZeroDivisionError("a mistake")


async def test_an_error_in_a_fleet_listener_does_not_affect_endpoints(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error is logged, and the endpoint that was probed last stays healthy."""
    well, odd = ListingNode({"name": WELL}), ListingNode({"name": ODD})
    async with fleet(well, odd) as app:
        monkeypatch.setattr(app, "admission", Broken())
        await probed(app)
        views = app.prober.snapshot.endpoints
        assert {view.health for view in views} == {Health.HEALTHY}
        assert {line["message"] for line in logged(app, "error")} == {"fleet update failed"}
        monkeypatch.undo()


async def test_a_model_list_that_is_cut_is_logged_and_shown() -> None:
    """The cut is logged once, and the endpoint's status shows it for as long as it lasts."""
    many = [{"name": f"m{number}"} for number in range(MODELS_MAX + 50)]
    well, odd = ListingNode({"name": WELL}), ListingNode(*many)
    async with fleet(well, odd) as app, aiohttp.ClientSession() as session:
        odd.set_answer("/api/tags", {"models": [*many, {"name": "one-more"}]})
        await probed(app)
        await assert_healthy(app, session)
        (line,) = [line for line in logged(app, "warning") if line["message"] == "model list cut"]
        assert (line["endpoint"], line["models_max"]) == ("odd", MODELS_MAX)
        async with session.get(f"{app.url}/internal/status/endpoints") as response:
            _, shown = (await response.json())["endpoints"]
        assert (shown["models"], shown["models_cut"]) == (MODELS_MAX, True)
        assert "only the first 10000 are known" in shown["reason"]
        odd.set_answer("/api/tags", {"models": many[:5]})
        await probed(app)
        async with session.get(f"{app.url}/internal/status/endpoints") as response:
            _, shown = (await response.json())["endpoints"]
        assert (shown["models"], shown["models_cut"], shown["reason"]) == (5, False, None)
