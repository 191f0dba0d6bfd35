"""`olla keys`: keys in the store that the configuration names, without a router."""

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
    """`olla keys`, with a store of its own."""
    (tmp_path / "olla.yaml").write_text(SETTINGS)
    return lambda *arguments: invoke("keys", *arguments)


def made(result: Result) -> dict[str, Any]:
    """The key that was made."""
    assert result.exit_code == 0, result.output
    shown: dict[str, Any] = json.loads(result.stdout)
    return shown


def test_a_key_is_shown_once_and_only_its_digest_is_kept(keys: Invoke, tmp_path: Path) -> None:
    """Alone on standard output, so that a script can take it; what to do with it beside that."""
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


def test_what_a_key_may_is_as_it_was_asked_for(keys: Invoke) -> None:
    """Operations, models, endpoints, owner and life."""
    shown = made(
        keys(
            *("create", "--json", "--tier", "member", "--owner", "alice", "--name", "it"),
            *("--operation", "embed", "--operation", "list", "--model", "nomic-*"),
            *("--endpoint", "gpu-1", "--expires", "30d"),
        )
    )
    assert shown["operations"] == ["embed", "list"]
    joined = made(keys("create", "--json", "--operations", "manage, List"))
    assert joined["operations"] == ["list", "manage"]
    for wrong in ("mange", "manage,", ""):
        refused = keys("create", "--operation", wrong)
        assert refused.exit_code == 2
        assert "is not a valid operation" in refused.output
    assert shown["models"] == ["nomic-*"]
    assert shown["endpoints"] == ["gpu-1"]
    assert (shown["user_id"], shown["name"], shown["tier"]) == ("alice", "it", "member")
    assert shown["created_at"] < shown["expires_at"]
    everything = made(keys("create", "--json", "--admin"))
    assert set(everything["operations"]) == {"generate", "embed", "list", "manage", "admin"}
    plain = made(keys("create", "--json"))
    assert set(plain["operations"]) == {"generate", "embed", "list"}


def test_a_tier_without_limits_or_an_endpoint_that_nobody_defined_is_noted(
    keys: Invoke, tmp_path: Path
) -> None:
    """The key is made; the note says which limits hold all the same."""
    result = keys("create", "--endpoint", "gpu-9")
    assert result.exit_code == 0
    note = "access.tiers says nothing of 'standard', so it has no limits"
    assert f"{note} but 60 requests a minute at the management API\n" in result.stderr
    assert "'gpu-9'" in result.stderr
    result = keys("create", "--tier", "anonymous")
    assert "but 10 requests a minute at the chat service\n" in result.stderr
    (tmp_path / "olla.yaml").write_text(SETTINGS + "surfaces: {management: {enabled: false}}\n")
    assert f"{note}\n" in keys("create").stderr
    assert "note" not in keys("create", "--tier", "premium").stderr


def test_the_list_tells_what_there_is(keys: Invoke) -> None:
    """As a table that obeys nothing which stands in a name, or as JSON; by owner, too."""
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


def test_what_a_key_made_is_shown_and_ends_with_it(keys: Invoke, tmp_path: Path) -> None:
    """The command says how many those are, and which."""
    for _ in range(4):
        keys("create")
    with sqlite3.connect(tmp_path / "keys.db") as connection:
        connection.execute("update keys set made_by = '1' where id = 2")
        connection.execute("update keys set made_by = '2' where id = 3")
    connection.close()
    shown = json.loads(keys("list", "--json").stdout)
    assert [each["made_by"] for each in shown] == [None, 1, 2, None]
    assert "so are 2 that it made, directly or by others: 2, 3\n" in keys("revoke", "1").stdout
    shown = json.loads(keys("list", "--json").stdout)
    assert [each["is_active"] for each in shown] == [False, False, False, True]


def test_the_list_tells_a_key_for_nothing_from_one_for_all(keys: Invoke, tmp_path: Path) -> None:
    """Such keys may have been made before they were refused."""
    for name in ("all", "none"):
        keys("create", "--name", name)
    with sqlite3.connect(tmp_path / "keys.db") as connection:
        connection.execute("update keys set models = '[\"\"]', rights = '[]' where id = 2")
    connection.close()
    first, second = keys("list").stdout.splitlines()[1:]
    assert " - " in first
    assert "''" in second
    assert "nothing" in second


def test_keys_of_the_configuration_are_counted_beside_it(keys: Invoke, tmp_path: Path) -> None:
    """They are none of the store's, and the list says so."""
    more = "access: {keys: [{name: ci, key: 'a-long-key'}], "
    (tmp_path / "olla.yaml").write_text(SETTINGS.replace("access: {", more))
    assert "1 more stand in the configuration" in keys("list").stderr


def test_a_revoked_key_stays_so_and_what_is_none_is_told(keys: Invoke) -> None:
    """Exit status 1 for an id that nobody has, or somebody else."""
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
def test_what_cannot_be_understood_is_2(keys: Invoke, arguments: tuple[str, ...]) -> None:
    """The command line or the configuration is wrong."""
    assert keys(*arguments).exit_code == 2


def test_a_store_that_cannot_be_used_is_one_line(keys: Invoke, tmp_path: Path) -> None:
    """Exit status 1, and what is wrong."""
    (tmp_path / "keys.db").write_text("no database " * 100)
    for arguments in (("list",), ("create", "--tier", "premium"), ("revoke", "1")):
        result = keys(*arguments)
        assert result.exit_code == 1
        assert result.stderr.startswith("olla: the store cannot be used: ")
        assert result.stderr.count("\n") == 1


def test_a_text_that_is_no_name_is_refused(keys: Invoke) -> None:
    """It would stand in logs and tables."""
    result = keys("create", "--tier", "premium", "--name", "a\nb")
    assert result.exit_code == 1
    assert "printable" in result.stderr


def test_a_router_that_runs_takes_what_was_made_and_no_more_what_was_revoked(
    keys: Invoke, tmp_path: Path
) -> None:
    """A key that it does not know it looks for; one that was revoked it learns of by itself."""
    store = tmp_path / "keys.db"
    with threaded_fleet(extra=f"store: {{url: 'sqlite:///{store}'}}\n") as fleet:
        key = keys("create", "--tier", "premium").stdout.strip()
        headers = {"Authorization": f"Bearer {key}"}
        url = f"{fleet.url}/api/tags"
        assert requests.get(url, headers=headers, timeout=10).status_code == 200
        keys("revoke", "1")
        fleet.call(fleet.fleet.app.access.store_service._read())
        assert requests.get(url, headers=headers, timeout=10).status_code == 401


def test_a_router_that_had_no_store_finds_the_one_that_was_made(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a word of keys in the configuration, the first key that is made counts."""
    (tmp_path / "olla.yaml").write_text("server: {port: 1}\n")
    monkeypatch.setenv("OLLA_HOME", str(tmp_path / "home"))
    with threaded_fleet() as fleet:
        made_up = {"Authorization": "Bearer oa-nobody"}
        url = f"{fleet.url}/api/tags"
        assert requests.get(url, headers=made_up, timeout=10).status_code == 401
        assert not (tmp_path / "home").exists()
        key = invoke("keys", "create").stdout.strip()
        headers = {"Authorization": f"Bearer {key}"}
        assert requests.get(url, headers=headers, timeout=10).status_code == 200


def test_routers_that_share_their_state_are_told_at_once(
    keys: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `state.url`, what was made or revoked is announced."""
    told: list[str] = []

    class Shared:
        up = True

        def __init__(self, url: str, *_: object, **__: object) -> None:
            assert url == "redis://127.0.0.1:1/0"

        async def start(self) -> None:
            await asyncio.sleep(0)

        async def announce(self, what: str) -> None:
            told.append(what)

        async def stop(self) -> None:
            await asyncio.sleep(0)

    monkeypatch.setattr("olla.state.shared_limits.SharedLimits", Shared)
    state = 'state: {url: "redis://127.0.0.1:1/0"}\n'
    (tmp_path / "olla.yaml").write_text(SETTINGS + state)
    keys("create", "--tier", "premium")
    assert "at once" in keys("revoke", "1").stderr
    assert told == ["keys", "revoked 1"]


def test_routers_that_cannot_be_told_find_out_by_themselves(keys: Invoke, tmp_path: Path) -> None:
    """A Redis that is away keeps nobody from revoking a key."""
    state = 'state: {url: "redis://127.0.0.1:1/0"}\n'
    (tmp_path / "olla.yaml").write_text(SETTINGS + state)
    assert keys("create", "--tier", "premium").exit_code == 0
    assert keys("revoke", "1").exit_code == 0
