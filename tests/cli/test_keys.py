"""Tests of `olla keys`, which works on the configured store without a router."""

import asyncio
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import Result

from olla.access.keys import digest_of
from tests.routers import threaded_fleet

Invoke = Callable[..., Result]
SETTINGS = """
store: {url: "sqlite:///keys.db"}
access: {tiers: {premium: {requests_per_minute: 300}, member: {}}}
discovery: {static: {endpoints: [{url: "http://localhost:11434", name: gpu-1, type: ollama}]}}
"""


@pytest.fixture
def keys(invoke: Invoke, tmp_path: Path) -> Invoke:
    """Return a function that runs `olla keys` with an empty store."""
    (tmp_path / "olla.yaml").write_text(SETTINGS)
    return lambda *arguments: invoke("keys", *arguments)


def created(result: Result) -> dict[str, Any]:
    """Return the created key."""
    assert result.exit_code == 0, result.output
    shown: dict[str, Any] = json.loads(result.stdout)
    return shown


def test_a_key_is_shown_once_and_only_its_digest_is_stored(keys: Invoke, tmp_path: Path) -> None:
    """The key is alone on standard output, for scripts; the instructions go to standard error."""
    result = keys("create", "--name", "ci", "--tier", "premium")
    assert result.exit_code == 0
    key = result.stdout.strip()
    assert key.startswith("oa-")
    assert "Authorization: Bearer" in result.stderr
    assert key not in result.stderr
    with sqlite3.connect(tmp_path / "keys.db") as connection:
        rows = connection.execute("select digest, name, tier from keys").fetchall()
    connection.close()
    assert rows == [(digest_of(key), "ci", "premium")]
    assert key not in keys("list").output
    assert key not in keys("list", "--json").output


def test_a_key_has_the_given_attributes(keys: Invoke) -> None:
    """Operations, models, endpoints, owner and expiry."""
    shown = created(
        keys(
            *("create", "--json", "--tier", "member", "--owner", "alice", "--name", "it"),
            *("--operation", "embed", "--operation", "list", "--model", "nomic-*"),
            *("--endpoint", "gpu-1", "--expires", "30d"),
        )
    )
    assert shown["operations"] == ["embed", "list"]
    joined = created(keys("create", "--json", "--operations", "manage, List"))
    assert joined["operations"] == ["list", "manage"]
    for wrong in ("mange", "manage,", ""):
        rejected = keys("create", "--operation", wrong)
        assert rejected.exit_code == 2
        assert "is not a valid operation" in rejected.output
    assert shown["models"] == ["nomic-*"]
    assert shown["endpoints"] == ["gpu-1"]
    assert (shown["user_id"], shown["name"], shown["tier"]) == ("alice", "it", "member")
    assert shown["created_at"] < shown["expires_at"]
    everything = created(keys("create", "--json", "--admin"))
    assert set(everything["operations"]) == {"generate", "embed", "list", "manage", "admin"}
    plain = created(keys("create", "--json"))
    assert set(plain["operations"]) == {"generate", "embed", "list"}


def test_an_undefined_tier_or_endpoint_is_noted(keys: Invoke, tmp_path: Path) -> None:
    """The key is created; the note says which built-in limits still apply."""
    result = keys("create", "--endpoint", "gpu-9")
    assert result.exit_code == 0
    note = "access.tiers does not define 'standard', so it has no limits"
    assert f"{note} except 60 requests per minute at the management API\n" in result.stderr
    assert "'gpu-9'" in result.stderr
    result = keys("create", "--tier", "anonymous")
    assert "except 10 requests per minute at the chat service\n" in result.stderr
    (tmp_path / "olla.yaml").write_text(SETTINGS + "surfaces: {management: {enabled: false}}\n")
    assert f"{note}\n" in keys("create").stderr
    assert "note" not in keys("create", "--tier", "premium").stderr


def test_the_list_shows_all_keys(keys: Invoke) -> None:
    """As a table, in which names are not read as markup, or as JSON; optionally by owner."""
    assert "olla keys create" in keys("list").stderr
    keys("create", "--name", "[red]a[/red]", "--owner", "alice")
    keys("create", "--name", "b", "--owner", "bob", "--admin")
    keys("revoke", "2")
    table = keys("list").stdout
    assert "[red]a[/red]" in table
    first, second = table.splitlines()[1:]
    assert "active" in first
    assert "alice" in first
    assert "revoked" in second
    shown = json.loads(keys("list", "--owner", "bob", "--json").stdout)
    assert [(each["id"], each["is_active"]) for each in shown] == [(2, False)]


def test_keys_created_by_a_key_are_revoked_with_it(keys: Invoke, tmp_path: Path) -> None:
    """The command says how many those are, and which."""
    for _ in range(4):
        keys("create")
    with sqlite3.connect(tmp_path / "keys.db") as connection:
        connection.execute("update keys set made_by = '1' where id = 2")
        connection.execute("update keys set made_by = '2' where id = 3")
    connection.close()
    shown = json.loads(keys("list", "--json").stdout)
    assert [each["made_by"] for each in shown] == [None, 1, 2, None]
    revoked = keys("revoke", "1").stdout
    assert "also revoked 2 that it created, directly or indirectly: 2, 3\n" in revoked
    shown = json.loads(keys("list", "--json").stdout)
    assert [each["is_active"] for each in shown] == [False, False, False, True]


def test_the_list_distinguishes_a_key_without_rights_from_one_without_limits(
    keys: Invoke, tmp_path: Path
) -> None:
    """Keys without any right may have been created before they were rejected."""
    for name in ("all", "none"):
        keys("create", "--name", name)
    with sqlite3.connect(tmp_path / "keys.db") as connection:
        connection.execute("update keys set models = '[\"\"]', rights = '[]' where id = 2")
    connection.close()
    first, second = keys("list").stdout.splitlines()[1:]
    assert " - " in first
    assert "''" in second
    assert "nothing" in second


def test_keys_of_the_configuration_are_counted(keys: Invoke, tmp_path: Path) -> None:
    """They are not in the store, and the list says so."""
    more = "access: {keys: [{name: ci, key: 'a-long-key'}], "
    (tmp_path / "olla.yaml").write_text(SETTINGS.replace("access: {", more))
    assert "the configuration has 1 more" in keys("list").stderr


def test_revoking_an_unknown_key_fails(keys: Invoke) -> None:
    """Exit status 1 for an id that does not exist, or that belongs to another owner."""
    keys("create", "--owner", "alice")
    assert keys("revoke", "1", "--owner", "bob").exit_code == 1
    revoked = keys("revoke", "1")
    assert revoked.exit_code == 0
    assert "within 1 s" in revoked.stderr
    missing = keys("revoke", "7")
    assert missing.exit_code == 1
    assert missing.stderr == "olla: there is no key with the id 7\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "--expires", "soon"),
        ("create", "--expires", "0s"),
        ("create", "--operation", "fly"),
        ("create", "--admin", "--operation", "list"),
        ("create", "--model", ""),
        ("create", "--model", "llama*", "--endpoint", " "),
        ("create", "--tier", "premum"),
        ("revoke",),
        ("list", "--config", "nowhere.yaml"),
    ],
)
def test_invalid_arguments_exit_with_two(keys: Invoke, arguments: tuple[str, ...]) -> None:
    """The command line or the configuration is invalid."""
    assert keys(*arguments).exit_code == 2


def test_an_unusable_store_is_reported_on_one_line(keys: Invoke, tmp_path: Path) -> None:
    """With exit status 1 and the reason."""
    (tmp_path / "keys.db").write_text("no database " * 100)
    for arguments in (("list",), ("create", "--tier", "premium"), ("revoke", "1")):
        result = keys(*arguments)
        assert result.exit_code == 1
        assert result.stderr.startswith("olla: the store cannot be used: ")
        assert result.stderr.count("\n") == 1


def test_an_unprintable_name_is_rejected(keys: Invoke) -> None:
    """Names appear in logs and tables."""
    result = keys("create", "--tier", "premium", "--name", "a\nb")
    assert result.exit_code == 1
    assert "printable" in result.stderr


def test_a_running_router_accepts_created_keys_and_rejects_revoked_ones(
    keys: Invoke, tmp_path: Path
) -> None:
    """It looks up an unknown key in the store, and learns of a revoked key at the next refresh."""
    store = tmp_path / "keys.db"
    with threaded_fleet(extra=f"store: {{url: 'sqlite:///{store}'}}\n") as fleet:
        key = keys("create", "--tier", "premium").stdout.strip()
        headers = {"Authorization": f"Bearer {key}"}
        url = f"{fleet.url}/api/tags"
        assert requests.get(url, headers=headers, timeout=10).status_code == 200
        keys("revoke", "1")
        fleet.call(fleet.fleet.app.access.store_service._read_keys())
        assert requests.get(url, headers=headers, timeout=10).status_code == 401


def test_a_router_without_a_store_finds_a_new_one(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the configuration does not mention keys, the first created key still counts."""
    (tmp_path / "olla.yaml").write_text("server: {port: 1}\n")
    monkeypatch.setenv("OLLA_HOME", str(tmp_path / "home"))
    with threaded_fleet() as fleet:
        invalid = {"Authorization": "Bearer oa-unknown"}
        url = f"{fleet.url}/api/tags"
        assert requests.get(url, headers=invalid, timeout=10).status_code == 401
        assert not (tmp_path / "home").exists()
        key = invoke("keys", "create").stdout.strip()
        headers = {"Authorization": f"Bearer {key}"}
        assert requests.get(url, headers=headers, timeout=10).status_code == 200


def test_routers_with_shared_state_are_notified_immediately(
    keys: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `state.url`, created and revoked keys are announced."""
    announced: list[str] = []

    class Shared:
        up = True

        def __init__(self, url: str, *_: object, **__: object) -> None:
            assert url == "redis://127.0.0.1:1/0"

        async def start(self) -> None:
            await asyncio.sleep(0)

        async def announce(self, what: str) -> None:
            announced.append(what)

        async def stop(self) -> None:
            await asyncio.sleep(0)

    monkeypatch.setattr("olla.state.shared_limits.SharedLimits", Shared)
    state = 'state: {url: "redis://127.0.0.1:1/0"}\n'
    (tmp_path / "olla.yaml").write_text(SETTINGS + state)
    keys("create", "--tier", "premium")
    assert "immediately" in keys("revoke", "1").stderr
    assert announced == ["keys", "revoked 1"]


def test_keys_can_be_revoked_while_redis_is_unavailable(keys: Invoke, tmp_path: Path) -> None:
    """Routers find the change in the store."""
    state = 'state: {url: "redis://127.0.0.1:1/0"}\n'
    (tmp_path / "olla.yaml").write_text(SETTINGS + state)
    assert keys("create", "--tier", "premium").exit_code == 0
    assert keys("revoke", "1").exit_code == 0
