"""A reload applies new settings atomically and loses no request; an invalid file changes
nothing."""

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest
import yaml

from olla.app import App, process
from olla.app.process import follow_settings
from olla.settings import LoadedSettings, SettingsError, load, parse
from tests.routers import ADMIN, WITH_ADMIN, Fleet, settings_text
from tests.waiting import until

MODEL, OTHER = "llama3.2:latest", "mistral:latest"


async def generate(
    session: aiohttp.ClientSession, fleet: Fleet, count: int = 3, model: str = MODEL, **headers: str
) -> tuple[int, str, str | None]:
    """Stream `count` tokens; return the status, the body and the endpoint."""
    body = {"model": model, "prompt": "a story", "options": {"num_predict": count}}
    url = f"{fleet.url}/api/generate"
    async with session.post(url, json=body, headers=headers) as response:
        return response.status, await response.text(), response.headers.get("X-Olla-Endpoint")


def settings(fleet: Fleet, *names: str, extra: str = "") -> LoadedSettings:
    """Build settings over some of the fleet's nodes, with a long probe timeout: nodes, router and
    clients share one busy event loop."""
    text = settings_text({name: fleet.nodes[name].url for name in names}, extra)
    hasty, patient = "check_interval: 1s, check_timeout: 500ms", "check_timeout: 4s"
    assert hasty in text
    return parse(text.replace(hasty, patient), {})


async def test_an_added_endpoint_is_used_at_once() -> None:
    """It is probed before it is added, so the next request can already go there."""
    nodes = {"a": (MODEL,), "b": (OTHER,)}
    async with Fleet(nodes) as fleet, aiohttp.ClientSession() as session:
        await fleet.app.reload(settings(fleet, "a"))
        assert (await generate(session, fleet, model=OTHER))[0] == 404
        await fleet.app.reload(settings(fleet, "a", "b"))
        status, _, endpoint = await generate(session, fleet, model=OTHER)
        assert (status, endpoint) == (200, "b")


async def test_a_removed_endpoint_drains() -> None:
    """Its running stream completes; new requests go elsewhere."""
    nodes = {"a": (MODEL,), "b": (MODEL,)}
    async with (
        Fleet(nodes, WITH_ADMIN, time_scale=0.5, load_bandwidth=1e12) as fleet,
        aiohttp.ClientSession() as session,
    ):
        pinned = {**ADMIN, "X-Olla-Endpoint": "a"}
        running = asyncio.create_task(generate(session, fleet, 200, **pinned))
        await until(lambda: fleet.nodes["a"].executor.running)
        await fleet.app.reload(settings(fleet, "b"))
        assert not running.done()
        assert [(await generate(session, fleet))[2] for _ in range(3)] == ["b"] * 3
        status, text, endpoint = await running
        assert (status, endpoint) == (200, "a")
        assert json.loads(text.splitlines()[-1])["done"] is True
        await fleet.settled()
        await fleet.check_clean()


async def test_requests_queued_for_a_removed_endpoint_go_elsewhere() -> None:
    """A queued request is not bound to the endpoint that it was expected to run on."""
    nodes = {"a": (MODEL,), "b": (MODEL,)}
    async with (
        Fleet(nodes, time_scale=0.02, num_parallel=1) as fleet,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        await fleet.app.reload(settings(fleet, "a"))
        pending = [asyncio.create_task(generate(session, fleet, 20)) for _ in range(100)]
        await until(lambda: fleet.app.dispatcher.waiting >= 90)
        async with asyncio.timeout(10):
            await fleet.app.reload(settings(fleet, "b"))
            answers = await asyncio.gather(*pending)
        assert {status for status, _, _ in answers} == {200}
        assert sum(endpoint == "b" for _, _, endpoint in answers) >= 90
        await fleet.check_clean()


async def test_reloading_under_load_loses_no_request() -> None:
    """Endpoints are added, removed and changed; every response is complete."""
    nodes = {"a": (MODEL,), "b": (MODEL,), "c": (MODEL,)}
    async with (
        Fleet(nodes) as fleet,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        stopping = asyncio.Event()
        answers: list[tuple[int, str, str | None]] = []

        async def client() -> None:
            while not stopping.is_set():
                answers.append(await generate(session, fleet))

        clients = [asyncio.create_task(client()) for _ in range(20)]
        for names in ("ab", "bc", "c", "abc", "a", "ca"):
            for policy in ("least-connections", "shortest-expected-delay"):
                extra = f"proxy: {{load_balancer: {policy}}}\n"
                await fleet.app.reload(settings(fleet, *names, extra=extra))
                before = len(answers)
                await until(lambda before=before: len(answers) >= before + 10)
        stopping.set()
        await asyncio.gather(*clients)
        assert len(answers) > 100
        assert {status for status, _, _ in answers} == {200}
        assert all('"done":true' in text for _, text, _ in answers)
        assert {endpoint for _, _, endpoint in answers} == set("abc")
        await fleet.settled()
        await fleet.check_clean()


async def test_a_reload_changes_limits_aliases_and_paths() -> None:
    """Running requests keep the settings that they began with."""
    async with (
        Fleet({"a": (MODEL,)}, time_scale=0.2, load_bandwidth=1e12) as fleet,
        aiohttp.ClientSession() as session,
    ):
        running = asyncio.create_task(generate(session, fleet, 2000))
        await until(lambda: fleet.nodes["a"].executor.running)
        extra = (
            "model_aliases: {chat: [llama3.2]}\nsurfaces: {root: {enabled: false}}\n"
            "proxy: {response_timeout: 60ms}\n"
        )
        await fleet.app.reload(settings(fleet, "a", extra=extra))
        assert (await generate(session, fleet))[0] == 404
        body = b'{"model": "chat", "prompt": "x", "options": {"num_predict": 2000}}'
        reader, writer = await asyncio.open_connection("127.0.0.1", int(fleet.url[17:]))
        writer.write(
            b"POST /olla/ollama/api/generate HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        cut = await reader.read()
        writer.close()
        assert b"proxy.response_timeout" in cut
        assert '"done":true' in (await running)[1]


@pytest.mark.parametrize(
    "text",
    ["", "server: {port: none}", "discovery: {static: {endpoints: [{url: 'gopher://x'}]}}", "- ["],
)
async def test_an_invalid_file_changes_nothing_and_its_problems_are_logged(
    tmp_path: Path, stamps: list[object], text: str
) -> None:
    """This holds on SIGHUP and when the file changes; the router keeps its settings."""
    file = tmp_path / "olla.yaml"
    async with Fleet({"a": (MODEL,)}) as fleet, aiohttp.ClientSession() as session:
        file.write_text(settings_text({"a": fleet.nodes["a"].url}))
        hangup = asyncio.Event()
        following = asyncio.create_task(
            follow_settings(fleet.app, lambda: load(file, {}), file, hangup, poll=0.02)
        )
        await until(lambda: stamps)
        before = fleet.app.prober.snapshot
        file.write_text(text)
        await until(lambda: "settings not loaded" in fleet.log.getvalue())
        hangup.set()
        await until(lambda: fleet.log.getvalue().count("settings not loaded") >= 2)
        assert "olla.yaml" in fleet.log.getvalue()
        assert fleet.app.prober.snapshot.by_name.keys() == before.by_name.keys()
        assert (await generate(session, fleet))[0] == 200
        file.write_text(settings_text({"b": fleet.nodes["a"].url}))
        await until(lambda: "b" in fleet.app.prober.snapshot.by_name)

        async def metrics() -> str:
            async with session.get(f"{fleet.url}/metrics") as response:
                return await response.text()

        async def counted() -> bool:
            return 'olla_config_reloads_total{outcome="ok"}' in await metrics()

        await until(counted)
        text = await metrics()
        assert reloads(text, 'outcome="ok"') >= 1
        assert reloads(text, 'outcome="failed"') >= 2
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


@pytest.fixture
def stamps(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Collect the stamps that olla takes of the configuration file."""
    taken: list[object] = []
    take = process._stamp

    def stamp(file: Path) -> tuple[int, int, int] | None:
        taken.append(found := take(file))
        return found

    monkeypatch.setattr(process, "_stamp", stamp)
    return taken


def reloads(metrics: str, label: str) -> float:
    """Return the reload counter with a label."""
    (line,) = [
        line
        for line in metrics.splitlines()
        if line.startswith("olla_config_reloads_total{") and label in line
    ]
    return float(line.rsplit(" ", 1)[1])


async def test_a_changed_file_is_read_once_it_is_stable(
    tmp_path: Path, stamps: list[object]
) -> None:
    """An editor may be in the middle of writing it."""
    file = tmp_path / "olla.yaml"
    read: list[str] = []
    async with Fleet({"a": (MODEL,)}) as fleet:
        whole = settings_text({"a": fleet.nodes["a"].url})
        file.write_text(whole)

        def reload() -> LoadedSettings:
            read.append(file.read_text())
            return load(file, {})

        following = asyncio.create_task(
            follow_settings(fleet.app, reload, file, asyncio.Event(), poll=0.1)
        )
        await until(lambda: stamps)
        for size in range(0, len(whole), len(whole) // 20):
            file.write_text(whole[:size])
            await asyncio.sleep(0.02)  # several writes within each poll
        file.write_text(whole + "\n")
        await until(lambda: read)
        assert read == [whole + "\n"]
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def test_a_setting_that_takes_a_restart_is_logged() -> None:
    """The log names the key; the other settings of the file take effect."""
    async with Fleet({"a": (MODEL,)}) as fleet:
        text = settings_text({"b": fleet.nodes["a"].url}).replace("port: 0", "port: 1")
        await fleet.app.reload(parse(text, {}))
        assert "b" in fleet.app.prober.snapshot.by_name
        (line,) = [line for line in fleet.log.getvalue().splitlines() if "needs a restart" in line]
        assert json.loads(line)["setting"] == "server.port"
        fleet.log.clear()
        await fleet.app.reload(parse(text.replace("port: 1", "port: 0"), {}))
        assert "needs a restart" not in fleet.log.getvalue()  # the port in use


async def test_an_unreadable_secret_changes_nothing(tmp_path: Path) -> None:
    """A missing token file is a problem like any other."""
    async with Fleet({"a": (MODEL,)}) as fleet:
        token = tmp_path / "token"
        token.write_text("secret")
        text = settings_text({"c": fleet.nodes["a"].url}).replace(
            "type: ollama,", f"type: ollama, auth: {{type: bearer, token_file: {token}}},"
        )
        loaded = parse(text, {})
        token.unlink()
        with pytest.raises(SettingsError):
            await fleet.app.reload(loaded)
        assert set(fleet.app.prober.snapshot.by_name) == {"a"}


def effective_state(app: App) -> dict[str, object]:
    """Return everything that a reload changes, as it is now."""
    config, server, dispatcher = app.config, app.downstream.server, app.dispatcher
    paths = app.downstream.internal_routes.paths
    limits = (
        "timeouts",
        "max_body",
        "aliases",
        "refresh_timeout",
        "context_rule",
        "wait_keepalive",
    )
    return {
        "settings": app.settings,
        "policy": dispatcher.policy.name,
        "options": dispatcher.options,
        "limits": dispatcher.limits,
        "retries": dispatcher.retries.share,
        "pool": (app.pool.connect_timeout, app.pool.idle_timeout),
        "loads": app.admission._loads.timeout,
        "lists": app.prober.list_interval,
        "config": [getattr(config, name) for name in limits],
        "bodies": (app.services.body_budget.limit, config.max_body),
        "served by": app.downstream._config is config,
        "paths": sorted(paths),
        "root": app.downstream._paths._root is not None,
        "access": app.access.authenticator.policy,
        "keys": sorted(caller.id for caller in app.access.keyring.callers()),
        "server": (server.head_max, server.timeouts),
        "connections": server.connections_max,
        "fast path": server.fast_path is not None,
        "status": (app.status._settings, app.status._policy),
        "endpoints": [(view.name, view.spec) for view in app.prober.snapshot.endpoints],
        "watched": {name: watch.spec for name, watch in app.prober._watches.items()},
    }


STEPS = (
    *("routing_options", "queue_limits", "load_timeout", "timeouts", "aliases", "context_rule"),
    *("paths_for", "internal_routes", "connections_max", "browser_guard"),
)
CHANGED = """
proxy: {load_balancer: round-robin, connection_timeout: 3s, connection_keep_alive: 7s,
        retry_budget: 0.5, read_timeout: 9s, response_header_timeout: 8s}
routing: {max_queue: 7, spillover: 1s}
model_aliases: {chat: [llama3.2]}
discovery: {model_discovery: {interval: 77s}}
access: {keys: [{name: new, key: a-key-of-sixteen-letters, operations: [generate]}]}
surfaces: {root: {enabled: false}, management: {enabled: false}}
"""


@pytest.mark.parametrize("step", [*STEPS, "access_policy", "describe"])
async def test_a_reload_that_fails_halfway_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Whichever step fails, the settings, limits, keys, paths and endpoints stay as they were,
    nothing leaks, and the next reload works."""
    nodes = {"a": (MODEL,), "b": (MODEL,)}
    async with Fleet(nodes) as fleet, aiohttp.ClientSession() as session:
        app = fleet.app
        await app.reload(settings(fleet, "a"))
        before = effective_state(app)
        text = settings_text({"b": fleet.nodes["b"].url})
        # Keep scalars as strings: YAML 1.1 reads `off` as a boolean and writes it as `false`.
        merged = yaml.load(text, yaml.BaseLoader)
        for key, value in yaml.load(CHANGED, yaml.BaseLoader).items():
            merged.setdefault(key, {}).update(value)
        loaded = parse(yaml.safe_dump(merged), {})

        def broken(*_: object, **__: object) -> None:
            raise RuntimeError("a fault in olla")

        with monkeypatch.context() as faulty:
            if step == "describe":
                faulty.setattr(app.status, "describe", broken)
            elif step == "access_policy":
                faulty.setattr("olla.app.access_wiring.access_policy", broken)
            else:
                faulty.setattr(f"olla.app.composition.{step}", broken)
            with pytest.raises(RuntimeError, match="a fault in olla"):
                await app.reload(loaded)
        assert effective_state(app) == before
        assert (await generate(session, fleet))[::2] == (200, "a")
        await app.reload(loaded)
        after = effective_state(app)
        unchanged = {"fast path", "served by", "connections", "server", "bodies", "context"}
        assert {name for name in before if after[name] == before[name]} <= unchanged
        assert (await generate(session, fleet))[0] == 404
        await app.reload(settings(fleet, "a"))
