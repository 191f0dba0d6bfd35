"""What a chat service's documentation shows its readers works here: each call, shape and error."""

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import requests

from tests.routers import ADMIN, WITH_ADMIN, Fleet, ThreadedFleet, threaded_fleet

MODEL = "smollm:latest"
NODES = {"gpu-1": (MODEL, "mistral:latest"), "gpu-2": (MODEL,)}
KEY = "oa-your-key"
"""The key in the examples: it stands in the configuration."""
WITH_MEMBER = f"{WITH_ADMIN}    - {{name: doc, key: {KEY}, tier: member, owner: user_abc123}}\n"
AS_ADMIN = 'curl -H "Authorization: Bearer the-admin-key"'
MESSAGE = {"message": "What is machine learning?"}


def store(path: Path) -> str:
    """Settings of a store of its own."""
    return f"store: {{url: 'sqlite:///{path / 'olla.db'}'}}\n"


@pytest.fixture(params=["", "/svc"], ids=["root", "prefix"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a service with open keys, in the place of http://localhost:8000."""
    prefix = str(request.param)
    service = f"surfaces: {{chat: {{prefix: '{prefix}', open_keys: true}}}}\n"
    extra = store(tmp_path) + WITH_MEMBER + service
    with threaded_fleet(NODES, extra) as running:
        yield running.url + prefix


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[ThreadedFleet]:
    """A router with a store and an admin key."""
    with threaded_fleet(NODES, store(tmp_path) + WITH_ADMIN) as running:
        yield running


@pytest.fixture
def self_service(tmp_path: Path) -> Iterator[str]:
    """A router whose members see to their own keys."""
    extra = WITH_ADMIN + "surfaces: {chat: {self_service: true}}\n"
    with threaded_fleet(NODES, store(tmp_path) + extra) as running:
        yield running.url


def curl(base: str, typed: str) -> tuple[int, str]:
    """What a typed command is answered: status and body."""
    command = shlex.split(typed.replace("\\\n", " ").replace("http://localhost:8000", base))
    command[1:1] = ["-s", "-w", "\n%{http_code}"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=15)
    body, _, status = ran.stdout.rpartition("\n")
    return int(status), body


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_every_curl_example_works_as_it_is_typed(base: str) -> None:
    """But for host and port, and a key to read the usage with."""
    status, body = curl(
        base,
        """curl -X POST "http://localhost:8000/chat" \\
  -H "Content-Type: application/json" \\
  -H "X-API-Key: oa-your-key" \\
  -d '{
    "message": "What is machine learning?",
    "model": "smollm:latest"
  }'""",
    )
    answer = json.loads(body)
    assert status == 200
    assert list(answer) == ["user", "tier", "response"]
    assert (answer["user"], answer["tier"]) == ("user_abc123", "member")
    assert list(answer["response"]) == ["model", "response", "done"]
    assert answer["response"]["model"] == MODEL
    assert answer["response"]["done"] is True

    status, body = curl(
        base,
        """curl -X POST "http://localhost:8000/chat/stream" \\
  -H "Content-Type: application/json" \\
  -d '{"message": "Hello", "model": "smollm:latest"}'""",
    )
    lines = [json.loads(line) for line in body.splitlines() if line]
    assert status == 200
    assert all(list(line) == ["model", "response", "done"] for line in lines)
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert lines[-1] == {"model": MODEL, "response": "", "done": True}

    status, body = curl(base, 'curl "http://localhost:8000/api/status"')
    assert status == 200
    shown = json.loads(body)
    assert list(shown) == ["server", "system", "ollama", "usage"]
    assert shown["ollama"]["online"] is True
    assert {each["name"] for each in shown["ollama"]["models"]} == {MODEL, "mistral:latest"}
    assert shown["usage"]["total_requests"] == 2
    assert shown["usage"]["active_anonymous_ips"] == 1
    assert shown["usage"]["anon_rate_limit"] == "10 req / 60s"
    assert shown["usage"]["member_rate_limit"] == "30 req / 60s"

    status, body = curl(base, AS_ADMIN + ' "http://localhost:8000/api/usage?limit=10"')
    rows = json.loads(body)["usage"]
    assert status == 200
    assert [row["user_id"] for row in rows] == [None, "user_abc123"]

    create = 'curl -X POST "http://localhost:8000/api/keys?user_id=abc&name=MyKey"'
    status, body = curl(base, create)
    made = json.loads(body)
    assert status == 201
    assert made["key"].startswith("oa-")
    assert (made["id"], made["name"], made["user_id"], made["tier"]) == (
        1,
        "MyKey",
        "abc",
        "member",
    )

    status, body = curl(base, 'curl "http://localhost:8000/api/keys?user_id=abc"')
    assert status == 200
    assert [each["name"] for each in json.loads(body)["keys"]] == ["MyKey"]
    assert made["key"] not in body

    status, body = curl(base, 'curl -X DELETE "http://localhost:8000/api/keys/1?user_id=abc"')
    assert status == 200
    assert json.loads(body)["is_active"] is False


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("header", ["X-API-Key: oa-...", "Authorization: Bearer oa-..."])
def test_a_placeholder_is_no_key(base: str, header: str) -> None:
    """Both ways to show one; with a real one, the path wants a POST."""
    status, body = curl(base, f'curl -H "{header}" http://localhost:8000/chat')
    assert status == 401
    assert json.loads(body)["error"]["code"] == "invalid_api_key"
    shown = header.replace("oa-...", KEY)
    assert curl(base, f'curl -H "{shown}" http://localhost:8000/chat')[0] == 405


def test_the_model_may_be_left_out(fleet: ThreadedFleet) -> None:
    """The documented default is asked."""
    answer = requests.post(fleet.url + "/chat", json=MESSAGE, timeout=10)
    assert answer.json()["user"] == "anonymous"
    assert answer.json()["response"]["model"] == MODEL
    assert answer.headers["X-Olla-Model"] == MODEL


@pytest.mark.parametrize("path", ["/chat", "/chat/stream"])
@pytest.mark.parametrize("body", ["", "{", "{}", '{"message": 1}', '{"message": ""}', "[]"])
def test_what_is_no_message_is_400(fleet: ThreadedFleet, path: str, body: str) -> None:
    """In olla's own shape, on the stream too."""
    answer = requests.post(fleet.url + path, data=body, timeout=10)
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"code", "message", "details"}
    assert answer.headers["X-RateLimit-Limit"] == "10"


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/chat", "POST"),
        ("PUT", "/chat/stream", "POST"),
        ("POST", "/api/status", "GET, HEAD"),
        ("DELETE", "/api/usage", "GET, HEAD"),
        ("DELETE", "/api/keys", "GET, HEAD, POST"),
        ("GET", "/api/keys/1", "DELETE"),
    ],
)
def test_other_methods_are_405(fleet: ThreadedFleet, method: str, path: str, allow: str) -> None:
    """And `Allow` names those that there are."""
    answer = requests.request(method, fleet.url + path, headers=ADMIN, timeout=10)
    assert answer.status_code == 405
    assert answer.headers["Allow"] == allow


def test_anonymous_callers_have_ten_a_minute(fleet: ThreadedFleet) -> None:
    """Each answer tells what is left, streams too; then 429 until one comes back."""
    with requests.Session() as client:
        for left in range(9, -1, -1):
            path = "/chat/stream" if left % 2 else "/chat"
            body = {"message": "x"} if left == 9 else {}
            answer = client.post(fleet.url + path, json=body, timeout=10)
            assert answer.status_code == (200 if left == 9 else 400)
            assert answer.headers["X-RateLimit-Limit"] == "10"
            assert answer.headers["X-RateLimit-Remaining"] == str(left)
            assert 0 < int(answer.headers["X-RateLimit-Reset"]) <= 60
        for path in ("/chat", "/chat/stream"):
            answer = client.post(fleet.url + path, json=MESSAGE, timeout=10)
            assert answer.status_code == 429
            assert answer.headers["Content-Type"] == "application/json"
            assert 1 <= int(answer.headers["Retry-After"]) <= 6
            assert answer.headers["X-RateLimit-Remaining"] == "0"
            assert answer.json()["error"]["code"] == "rate_limit_exceeded"
        # What asks nothing of a model is not limited by it, nor are members, nor other paths.
        assert client.get(fleet.url + "/api/status", timeout=10).status_code == 200
        made = client.post(fleet.url + "/api/keys?user_id=abc", headers=ADMIN, timeout=10).json()
        answer = client.post(
            fleet.url + "/chat", json=MESSAGE, headers={"X-API-Key": made["key"]}, timeout=10
        )
        assert answer.status_code == 200
        assert answer.headers["X-RateLimit-Limit"] == "30"
        body = {"model": MODEL, "prompt": "x", "stream": False}
        assert client.post(fleet.url + "/api/generate", json=body, timeout=10).status_code == 200


def test_the_configuration_s_limits_come_first(tmp_path: Path) -> None:
    """A tier that it names has its limits; one that it names without any has none."""
    extra = "access: {tiers: {anonymous: {requests_per_minute: 2}, member: {}}}\n"
    with threaded_fleet(NODES, store(tmp_path) + extra) as fleet:
        found = [requests.post(fleet.url + "/chat", json={}, timeout=10) for _ in range(3)]
        assert [each.status_code for each in found] == [400, 400, 429]
        usage = requests.get(fleet.url + "/api/status", timeout=10).json()["usage"]
        assert usage["anon_rate_limit"] == "2 req / 60s"
        assert usage["member_rate_limit"] == "unlimited"


def test_a_revoked_key_is_refused_at_once(fleet: ThreadedFleet) -> None:
    """And one that has never been is, too, though this router asks for none."""
    url = fleet.url
    wanted = {"user_id": "leaver", "name": "k"}
    made = requests.post(url + "/api/keys", json=wanted, headers=ADMIN, timeout=10).json()
    headers = {"Authorization": f"Bearer {made['key']}"}
    answer = requests.post(url + "/chat", json=MESSAGE, headers=headers, timeout=10)
    assert (answer.json()["user"], answer.json()["tier"]) == ("leaver", "member")
    requests.delete(f"{url}/api/keys/{made['id']}?user_id=leaver", headers=ADMIN, timeout=10)
    for path in ("/chat", "/chat/stream"):
        answer = requests.post(url + path, json=MESSAGE, headers=headers, timeout=10)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "api_key_revoked"
        for unknown in ("oa-nobody", "something-else"):
            answer = requests.post(
                url + path, json=MESSAGE, headers={"X-API-Key": unknown}, timeout=10
            )
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "invalid_api_key"
    for path in ("/api/status", "/api/usage", "/api/keys"):
        assert requests.get(url + path, headers=headers, timeout=10).status_code == 401


def test_a_key_belongs_to_its_user(fleet: ThreadedFleet) -> None:
    """Lists and revocations are by user; without one, an admin means all."""
    url = fleet.url
    for user in ("a", "b", "a"):
        requests.post(f"{url}/api/keys?user_id={user}", headers=ADMIN, timeout=10)
    assert [
        each["id"]
        for each in requests.get(f"{url}/api/keys?user_id=a", headers=ADMIN, timeout=10).json()[
            "keys"
        ]
    ] == [1, 3]
    assert len(requests.get(f"{url}/api/keys", headers=ADMIN, timeout=10).json()["keys"]) == 3
    for id in ("1", "9", "x", "%2e"):
        answer = requests.delete(f"{url}/api/keys/{id}?user_id=b", headers=ADMIN, timeout=10)
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "not_found"
    assert (
        requests.delete(f"{url}/api/keys/1", headers=ADMIN, timeout=10).json()["is_active"] is False
    )
    answer = requests.post(f"{url}/api/keys?name=nobody", headers=ADMIN, timeout=10)
    assert answer.status_code == 400
    assert "user_id" in answer.json()["error"]["message"]
    assert (
        requests.post(f"{url}/api/keys?user_id=a%0ab", headers=ADMIN, timeout=10).status_code == 400
    )


def test_usage_is_newest_first_and_by_user(fleet: ThreadedFleet) -> None:
    """What was asked a moment ago is there; proxied requests are, too."""
    url = fleet.url
    key = requests.post(f"{url}/api/keys?user_id=abc&name=k", headers=ADMIN, timeout=10).json()[
        "key"
    ]
    shown = {"X-API-Key": key}
    requests.post(url + "/chat", json=MESSAGE, headers=shown, timeout=10)
    requests.post(url + "/chat/stream", json=MESSAGE, timeout=10)
    body = {"model": "mistral", "prompt": "x", "stream": False}
    requests.post(url + "/api/generate", json=body, headers=shown, timeout=10)
    requests.post(url + "/chat", json={"message": "x", "model": "nope"}, timeout=10)
    answer = requests.get(url + "/api/usage", headers=ADMIN, timeout=10).json()
    assert answer["count"] == 4
    first, second, third, last = answer["usage"]
    assert (first["status"], first["error"], first["model"]) == (404, "model_not_found", "nope")
    assert (second["model"], second["user_id"], second["tier"]) == (
        "mistral:latest",
        "abc",
        "member",
    )
    assert (third["user_id"], third["caller"], third["streaming"]) == (None, "addr:127.0.0.1", True)
    assert (last["user_id"], last["key_name"], last["endpoint"] in NODES) == ("abc", "k", True)
    assert last["total_tokens"] == last["prompt_tokens"] + last["output_tokens"] > 0
    assert last["duration_seconds"] >= last["first_token_seconds"] > 0
    assert last["operation"] == "generate"
    mine = requests.get(f"{url}/api/usage?user_id=abc&limit=1", headers=ADMIN, timeout=10).json()
    assert mine == {"usage": [second], "count": 1}
    assert (
        requests.get(f"{url}/api/usage?user_id=&limit=", headers=ADMIN, timeout=10).json()["count"]
        == 4
    )
    assert (
        requests.get(f"{url}/api/usage?user_id=nobody", headers=ADMIN, timeout=10).json()["count"]
        == 0
    )


def test_usage_from_before_the_first_key_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first admin key is made in the default store while the router runs, which opens it then;
    until somebody makes one, no file is made."""
    monkeypatch.setenv("OLLA_HOME", str(tmp_path / "home"))
    with threaded_fleet(NODES) as fleet:
        url = fleet.url
        requests.post(url + "/chat", json=MESSAGE, timeout=10)
        assert requests.get(url + "/api/status", timeout=10).json()["usage"]["total_requests"] == 1
        assert not (tmp_path / "home").exists()
        made = [sys.executable, "-m", "olla", "keys", "create", "--admin"]
        ran = subprocess.run(made, cwd=tmp_path, capture_output=True, text=True, timeout=15)
        assert ran.returncode == 0, ran.stderr
        admin = {"Authorization": f"Bearer {ran.stdout.strip()}"}
        (row,) = requests.get(url + "/api/usage", headers=admin, timeout=10).json()["usage"]
        assert row["model"] == MODEL
        assert requests.get(url + "/api/status", timeout=10).json()["usage"]["total_requests"] == 1


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "ten", "1.5", "²", "9" * 40])
def test_a_limit_out_of_bounds_is_400(fleet: ThreadedFleet, limit: str) -> None:
    """And says what the bounds are."""
    answer = requests.get(
        fleet.url + "/api/usage", params={"limit": limit}, headers=ADMIN, timeout=10
    )
    assert answer.status_code == 400
    assert "1 to 1000" in answer.json()["error"]["message"]


@pytest.mark.parametrize("user", ["%00", "a%0ab", "%1b[31m", "%7F"])
def test_a_user_that_cannot_be_is_400(fleet: ThreadedFleet, user: str) -> None:
    """No database is asked for what it cannot hold."""
    for method, path in (("GET", "usage"), ("GET", "keys"), ("DELETE", "keys/1"), ("POST", "keys")):
        url = f"{fleet.url}/api/{path}?user_id={user}"
        answer = requests.request(method, url, headers=ADMIN, timeout=10)
        assert answer.status_code == 400, (method, path)
        assert "user_id" in answer.json()["error"]["message"]


def test_keys_and_usage_are_for_admins(fleet: ThreadedFleet) -> None:
    """Without a key, or with a member's, it is 403; the status is open."""
    url = fleet.url
    key = requests.post(f"{url}/api/keys?user_id=abc", headers=ADMIN, timeout=10).json()["key"]
    for headers in ({}, {"X-API-Key": key}):
        for method, path in (
            ("GET", "/api/keys?user_id=abc"),
            ("POST", "/api/keys?user_id=abc"),
            ("DELETE", "/api/keys/1?user_id=abc"),
            ("GET", "/api/usage?user_id=abc"),
        ):
            answer = requests.request(method, url + path, headers=headers, timeout=10)
            assert answer.status_code == 403, (headers, path)
        assert requests.get(url + "/api/status", headers=headers, timeout=10).status_code == 200
    assert len(requests.get(f"{url}/api/keys", headers=ADMIN, timeout=10).json()["keys"]) == 1


def test_self_service_is_for_one_s_own(self_service: str) -> None:
    """A member makes, sees and revokes keys of its own, and sees its own usage."""
    url = self_service

    def ask(method: str, path: str, **headers: str) -> tuple[int, Any]:
        answer = requests.request(method, url + path, headers=headers, timeout=10)
        return answer.status_code, answer.json()

    assert ask("POST", "/api/keys?user_id=a")[0] == 401
    for user in ("a", "b"):
        assert ask("POST", f"/api/keys?user_id={user}", **ADMIN)[0] == 201
    first = ask("POST", "/api/keys?user_id=a&name=first", **ADMIN)[1]
    mine = {"X-API-Key": first["key"]}
    requests.post(url + "/chat", json=MESSAGE, headers=mine, timeout=10)
    requests.post(url + "/chat", json=MESSAGE, timeout=10)

    status, made = ask("POST", "/api/keys?name=second", **mine)
    assert (status, made["user_id"], made["tier"]) == (201, "a", "member")
    assert [each["name"] for each in ask("GET", "/api/keys", **mine)[1]["keys"]] == [
        *("default", "first", "second"),
    ]
    assert [row["user_id"] for row in ask("GET", "/api/usage", **mine)[1]["usage"]] == ["a"]
    assert ask("DELETE", f"/api/keys/{made['id']}", **mine)[0] == 200
    assert ask("DELETE", "/api/keys/2", **mine)[0] == 404  # b's
    for method, path in (("GET", "/api/usage"), ("GET", "/api/keys"), ("POST", "/api/keys")):
        status, answer = ask(method, f"{path}?user_id=b", **mine)
        assert status == 403
        assert "own user" in answer["error"]["message"]
    assert len(ask("GET", "/api/usage", **ADMIN)[1]["usage"]) == 2


def test_what_a_member_s_key_made_ends_with_it(self_service: str) -> None:
    """The answer and the list say which key made which."""
    url = self_service

    def make(shown: dict[str, str], query: str = "") -> Any:
        answer = requests.post(f"{url}/api/keys{query}", headers=shown, timeout=10)
        assert answer.status_code == 201
        return answer.json()

    first = make(ADMIN, "?user_id=a")
    assert first["made_by"] == "static:root"
    second = make({"X-API-Key": first["key"]})
    third = make({"X-API-Key": second["key"]})
    other = make(ADMIN, "?user_id=a")
    listed = requests.get(f"{url}/api/keys", headers={"X-API-Key": third["key"]}, timeout=10)
    assert [each["made_by"] for each in listed.json()["keys"]] == [
        *("static:root", first["id"], second["id"], "static:root"),
    ]
    ended = requests.delete(f"{url}/api/keys/{first['id']}", headers=ADMIN, timeout=10).json()
    assert ended["also_revoked"] == [second["id"], third["id"]]
    for key, status in ((first, 401), (second, 401), (third, 401), (other, 200)):
        shown = {"X-API-Key": key["key"]}
        answer = requests.post(url + "/chat", json=MESSAGE, headers=shown, timeout=10)
        assert answer.status_code == status


@pytest.fixture
def open_keys(tmp_path: Path) -> Iterator[ThreadedFleet]:
    """A router with open keys, whose members see to their own."""
    extra = WITH_ADMIN + "surfaces: {chat: {open_keys: true, self_service: true}}\n"
    with threaded_fleet(NODES, store(tmp_path) + extra) as running:
        yield running


def test_an_open_key_is_a_member_s_and_no_more(open_keys: ThreadedFleet) -> None:
    """Whatever the request asks for; it makes no other keys, and sees neither keys nor usage."""
    url = open_keys.url
    wanted = {"user_id": "a", "tier": "premium", "operations": ["admin", "manage"]}
    made = requests.post(f"{url}/api/keys?tier=premium", json=wanted, timeout=10).json()
    assert (made["tier"], made["made_by"]) == ("member", "anonymous")
    assert made["operations"] == ["embed", "generate", "list"]
    shown = {"X-API-Key": made["key"]}
    assert requests.post(f"{url}/chat", json=MESSAGE, headers=shown, timeout=10).status_code == 200
    for method, path in (("POST", "keys"), ("GET", "keys"), ("GET", "usage"), ("DELETE", "keys/1")):
        answer = requests.request(method, f"{url}/api/{path}", headers=shown, timeout=10)
        assert answer.status_code == 403, (method, path)
    copy = {"source": MODEL, "destination": "mine"}
    answer = requests.post(f"{url}/api/copy", json=copy, headers=shown, timeout=10)
    assert answer.status_code == 403
    management = f"{url}/olla/management/api-keys"
    assert requests.get(management, headers=shown, timeout=10).status_code == 403


def test_without_a_key_only_open_keys_can_be_reached(open_keys: ThreadedFleet) -> None:
    """Those that an admin has made are neither listed nor revoked, and their users get no open
    ones; usage stays closed."""
    url = open_keys.url
    kept = requests.post(f"{url}/api/keys?user_id=a", headers=ADMIN, timeout=10).json()
    made = requests.post(f"{url}/api/keys?user_id=b", timeout=10).json()
    answer = requests.post(f"{url}/api/keys?user_id=a", timeout=10)
    assert answer.status_code == 403
    assert "made with a key" in answer.json()["error"]["message"]
    assert requests.get(f"{url}/api/keys?user_id=a", timeout=10).json() == {"keys": []}
    listed = requests.get(f"{url}/api/keys?user_id=b", timeout=10).json()["keys"]
    assert [each["id"] for each in listed] == [made["id"]]
    for query, status in (("", 400), ("?user_id=", 400), ("?user_id=a", 404), ("?user_id=b", 404)):
        answer = requests.delete(f"{url}/api/keys/{kept['id']}{query}", timeout=10)
        assert answer.status_code == status, query
    assert requests.get(f"{url}/api/keys", timeout=10).status_code == 400
    assert requests.post(f"{url}/api/keys", timeout=10).status_code == 400
    assert requests.get(f"{url}/api/usage?user_id=b", timeout=10).status_code == 401
    shown = {"X-API-Key": kept["key"]}
    assert requests.post(f"{url}/chat", json=MESSAGE, headers=shown, timeout=10).status_code == 200
    answer = requests.delete(f"{url}/api/keys/{made['id']}?user_id=b", timeout=10)
    assert answer.json()["is_active"] is False


def test_open_keys_have_a_bound(open_keys: ThreadedFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five active ones of a user, and so many in all, since each is in memory for good."""
    url = open_keys.url
    found = [requests.post(f"{url}/api/keys?user_id=a", timeout=10) for _ in range(6)]
    assert [each.status_code for each in found] == [201] * 5 + [403]
    monkeypatch.setattr("olla.surfaces.chat.keys_and_usage._OPEN_KEYS_MAX", 6)
    for user, status in (("b", 201), ("c", 403)):
        answer = requests.post(f"{url}/api/keys?user_id={user}", timeout=10)
        assert answer.status_code == status
    assert "an admin can make more" in answer.json()["error"]["message"]


def test_open_keys_are_of_no_use_where_keys_are_required(tmp_path: Path) -> None:
    """Required is required."""
    extra = f"{WITH_ADMIN}  require_key: true\nsurfaces: {{chat: {{open_keys: true}}}}\n"
    with threaded_fleet(NODES, store(tmp_path) + extra) as fleet:
        for method in ("GET", "POST"):
            answer = requests.request(method, f"{fleet.url}/api/keys?user_id=a", timeout=10)
            assert answer.status_code == 401


def test_self_service_multiplies_nothing(self_service: str, tmp_path: Path) -> None:
    """So many keys a member, each no more than the one it was made with."""
    url = self_service
    first = requests.post(f"{url}/api/keys?user_id=a", headers=ADMIN, timeout=10).json()
    mine = {"X-API-Key": first["key"]}
    found = [requests.post(f"{url}/api/keys", headers=mine, timeout=10) for _ in range(5)]
    assert [each.status_code for each in found] == [201] * 4 + [403]
    assert "revoke one first" in found[-1].json()["error"]["message"]
    assert found[0].json()["operations"] == first["operations"]


def test_where_keys_are_required_the_service_asks_for_one(tmp_path: Path) -> None:
    """For everything that it has."""
    with threaded_fleet(NODES, f"{store(tmp_path)}{WITH_ADMIN}  require_key: true\n") as fleet:
        url = fleet.url
        for method, path in (
            *(("POST", "/chat"), ("POST", "/chat/stream"), ("GET", "/api/status")),
            *(("GET", "/api/usage"), ("GET", "/api/keys"), ("POST", "/api/keys?user_id=abc")),
        ):
            answer = requests.request(method, url + path, json=MESSAGE, timeout=10)
            assert answer.status_code == 401, path
        key = requests.post(f"{url}/api/keys?user_id=abc", headers=ADMIN, timeout=10).json()["key"]
        shown = {"X-API-Key": key}
        answer = requests.post(url + "/chat", json=MESSAGE, headers=shown, timeout=10)
        assert answer.status_code == 200
        assert requests.get(url + "/api/status", headers=shown, timeout=10).status_code == 200


async def test_without_its_store_keys_and_usage_are_503() -> None:
    """Chat and status go on; a key that nobody can look up is 503 as well."""
    away = "store: {url: 'postgresql://u@127.0.0.1:1/olla'}\n"
    async with Fleet(NODES, away + WITH_ADMIN) as fleet:

        async def ask(method: str, path: str, **more: Any) -> tuple[int, Any]:
            async with (
                aiohttp.ClientSession() as client,
                client.request(method, fleet.url + path, **more) as response,
            ):
                if response.status == 503:
                    assert int(response.headers["Retry-After"]) >= 1
                return response.status, await response.json()

        for method, path in (
            ("GET", "/api/usage"),
            ("GET", "/api/keys?user_id=abc"),
            ("POST", "/api/keys?user_id=abc"),
            ("DELETE", "/api/keys/1?user_id=abc"),
        ):
            status, answer = await ask(method, path, headers=ADMIN)
            assert status == 503
            assert answer["error"]["code"] == "store_unavailable"
        assert (await ask("POST", "/chat", json=MESSAGE, headers={"X-API-Key": "oa-x"}))[0] == 503
        assert (await ask("POST", "/chat", json=MESSAGE))[0] == 200
        status, shown = await ask("GET", "/api/status")
        assert (status, shown["usage"]["total_requests"]) == (200, 2)


async def test_offline_is_told_by_the_status_as_well() -> None:
    """503 for chat; the status says that Ollama is not online."""
    async with Fleet({"gpu-1": (MODEL,)}) as fleet, aiohttp.ClientSession() as client:
        await fleet.nodes["gpu-1"].refuse()
        async with client.post(fleet.url + "/chat", json=MESSAGE) as response:
            assert response.status == 503
        async with client.get(fleet.url + "/api/status") as response:
            assert (await response.json())["ollama"] == {"online": False, "models": []}


def test_switched_off_it_does_not_exist(tmp_path: Path) -> None:
    """Its paths are what they were without it."""
    with threaded_fleet(NODES, "surfaces: {chat: {enabled: false}}\n") as fleet:
        answer = requests.get(fleet.url + "/api/status", timeout=10)
        assert "usage" not in answer.text
        assert requests.post(fleet.url + "/chat", json=MESSAGE, timeout=10).status_code != 200
