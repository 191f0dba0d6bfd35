"""What a management gateway's API documentation shows works: shapes, keys, limits, errors."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from olla.simulation.faults import Fault
from tests.routers import ThreadedFleet, threaded_fleet

NODES = {"gpu-1": ("llama2:7b", "codellama:7b")}
STANDARD, PREMIUM, ADMIN = "your_api_key_here", "a_premium_key_here", "an_admin_key_here"
SETTINGS = f"""
access:
  require_key: true
  tiers: {{admin: {{}}}}
  keys:
    - {{name: standard, key: {STANDARD}}}
    - {{name: premium, key: {PREMIUM}, tier: premium}}
    - {{name: admin, key: {ADMIN}, tier: admin, operations: [admin, list, generate]}}
surfaces:
  management:
    models:
      "llama2:7b":
        name: Llama 2 7B
        description: Meta's Llama 2 7B parameter model
        parameters: {{temperature: 0.7, top_p: 0.9, top_k: 40}}
      "codellama:7b":
        name: Code Llama 7B
        description: Meta's Code Llama 7B parameter model optimized for code generation
        parameters: {{temperature: 0.5, top_p: 0.95}}
"""
CHAT: dict[str, Any] = {
    "model": "llama2:7b",
    "messages": [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Hello, can you explain how neural networks work?"},
    ],
    "temperature": 0.7,
    "max_tokens": 1000,
}
GENERATE: dict[str, Any] = {
    "model": "llama2:7b",
    "prompt": "Write a short poem about artificial intelligence.",
    "temperature": 0.7,
    "max_tokens": 1000,
}
CURL = """curl -X POST "https://your-domain.com/api/chat" \\
  -H "Authorization: Bearer your_api_key_here" \\
  -H "Content-Type: application/json" \\
  -d '{
    "model": "llama2:7b",
    "messages": [
      {
        "role": "system",
        "content": "You are a helpful assistant."
      },
      {
        "role": "user",
        "content": "Write me a short story about a robot who discovers emotions."
      }
    ],
    "temperature": 0.7
  }'
"""
LIMITS = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")


def bearer(key: str) -> dict[str, str]:
    """The documented header."""
    return {"Authorization": f"Bearer {key}"}


def settings(folder: Path, prefix: str, more: str = "") -> str:
    """The configuration with a store of its own, under a prefix."""
    placed = SETTINGS.replace("  management:\n", f"  management:\n    prefix: {prefix}\n")
    return f"{placed}{more}\nstore: {{url: 'sqlite:///{folder}/keys.db'}}\n"


@pytest.fixture(scope="module", params=["/olla/management", "/api"])
def fleet(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ThreadedFleet, str]]:
    """A node with the models of the examples, and the API's address."""
    folder = tmp_path_factory.mktemp("store")
    with threaded_fleet(NODES, settings(folder, request.param)) as running:
        yield running, running.url + request.param


@pytest.fixture
def base(fleet: tuple[ThreadedFleet, str]) -> str:
    """The API's address."""
    return fleet[1]


def post(base: str, path: str, body: Any, key: str = PREMIUM) -> requests.Response:
    """A POST with a key."""
    return requests.post(f"{base}{path}", json=body, headers=bearer(key), timeout=10)


def test_models_are_listed_as_documented(base: str) -> None:
    """The example's answer, to the letter."""
    answer = requests.get(f"{base}/models", headers=bearer(PREMIUM), timeout=10)
    assert answer.status_code == 200
    assert answer.json() == {
        "models": [
            {
                "id": "llama2:7b",
                "name": "Llama 2 7B",
                "description": "Meta's Llama 2 7B parameter model",
                "is_active": True,
                "parameters": {"temperature": 0.7, "top_p": 0.9, "top_k": 40},
            },
            {
                "id": "codellama:7b",
                "name": "Code Llama 7B",
                "description": "Meta's Code Llama 7B parameter model optimized for code generation",
                "is_active": True,
                "parameters": {"temperature": 0.5, "top_p": 0.95},
            },
        ]
    }


def check_answer(shown: dict[str, Any], word: str) -> dict[str, Any]:
    """The documented frame of an answer; returns its only choice."""
    assert set(shown) == {"id", "object", "created", "model", "choices", "usage"}
    assert shown["id"].startswith("cmpl-")
    assert shown["object"] == word
    assert abs(shown["created"] - time.time()) < 60
    assert shown["model"] == "llama2:7b"
    usage = shown["usage"]
    assert set(usage) == {"prompt_tokens", "completion_tokens", "total_tokens"}
    assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"]
    (choice,) = shown["choices"]
    assert choice["finish_reason"] in ("stop", "length")
    assert choice["index"] == 0
    return dict(choice)


def test_a_chat_answers_as_documented(base: str) -> None:
    """The assistant's message, with usage."""
    answer = post(base, "/chat", CHAT)
    assert answer.status_code == 200, answer.text
    choice = check_answer(answer.json(), "chat.completion")
    assert set(choice) == {"message", "finish_reason", "index"}
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"]


def test_a_text_is_generated_as_documented(base: str) -> None:
    """The text, with usage."""
    answer = post(base, "/generate", GENERATE)
    assert answer.status_code == 200, answer.text
    choice = check_answer(answer.json(), "text.completion")
    assert set(choice) == {"text", "finish_reason", "index"}
    assert choice["text"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_example_answers_as_it_is_typed(base: str) -> None:
    """Only the address is another."""
    command = CURL.replace("https://your-domain.com/api", base).replace("curl ", "curl -sf ")
    ran = subprocess.run(command, shell=True, capture_output=True, check=True, timeout=15)
    assert check_answer(json.loads(ran.stdout), "chat.completion")["message"]["content"]


def test_a_stream_is_openais(base: str) -> None:
    """Events until [DONE]."""
    with requests.post(
        f"{base}/chat", json={**CHAT, "stream": True}, headers=bearer(PREMIUM), stream=True
    ) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert answer.headers["X-Olla-Endpoint"] == "gpu-1"
        assert all(name in answer.headers for name in LIMITS)
        events = [line[6:] for line in answer.iter_lines() if line.startswith(b"data: ")]
    assert events[-1] == b"[DONE]"
    assert json.loads(events[0])["object"] == "chat.completion.chunk"


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/chat", {**CHAT, "model": None}, "model"),
        ("/chat", {"model": "llama2:7b"}, "messages"),
        ("/chat", {**CHAT, "messages": []}, "messages"),
        ("/chat", {**CHAT, "messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
        ("/chat", {**CHAT, "temperature": "hot"}, "temperature"),
        ("/chat", {**CHAT, "max_tokens": 0}, "max_tokens"),
        ("/generate", {"model": "llama2:7b"}, "prompt"),
        ("/generate", {"prompt": "x"}, "model"),
    ],
)
def test_a_bad_request_names_the_field(base: str, path: str, body: Any, field: str) -> None:
    """400 in the documented shape."""
    answer = post(base, path, body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert f"'{field}'" in error["message"]
    assert error["code"]


def test_a_body_that_is_no_json_is_a_bad_request(base: str) -> None:
    """400, whatever is sent."""
    for body in (b"", b"{", b"[]", b"\xff"):
        answer = requests.post(f"{base}/chat", data=body, headers=bearer(PREMIUM), timeout=10)
        assert answer.status_code == 400
        assert answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/models", "/chat", "/generate"])
def test_an_unknown_key_is_refused_as_documented(base: str, path: str) -> None:
    """The example's error: type, code, and how the message begins."""
    method = "GET" if path == "/models" else "POST"
    answer = requests.request(method, f"{base}{path}", headers=bearer("wrong_key"), timeout=10)
    assert answer.status_code == 401
    error = answer.json()["error"]
    assert error["message"].startswith("Invalid API key provided")
    assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")


def test_a_key_is_needed(base: str) -> None:
    """401 without one."""
    answer = requests.post(f"{base}/chat", json=CHAT, timeout=10)
    assert answer.status_code == 401
    assert answer.json()["error"]["type"] == "authentication_error"


def test_an_unknown_model_is_not_found(base: str) -> None:
    """404."""
    answer = post(base, "/chat", {**CHAT, "model": "nonexistent"})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"


def test_what_goes_wrong_at_the_end_is_an_internal_error(fleet: tuple[ThreadedFleet, str]) -> None:
    """500 of the only endpoint, in the documented shape."""
    running, base = fleet
    node = running.fleet.nodes["gpu-1"]
    node.faults.set("status", Fault(status=500, paths=("/v1/completions",)))
    try:
        answer = post(base, "/generate", GENERATE)
    finally:
        node.faults.clear()
    assert answer.status_code == 500
    assert set(answer.json()["error"]) >= {"message", "type", "code"}


@pytest.mark.parametrize(("key", "limit"), [(STANDARD, 60), (PREMIUM, 300)])
def test_limits_are_those_of_the_keys_tier(base: str, key: str, limit: int) -> None:
    """Standard 60 and premium 300 a minute, in the three documented headers; Unix time."""
    before = time.time()
    answers = [
        requests.get(f"{base}/models", headers=bearer(key), timeout=10),
        post(base, "/chat", {**CHAT, "max_tokens": 1}, key),
        post(base, "/chat", {}, key),
    ]
    for answer in answers:
        told, left, reset = (int(answer.headers[name]) for name in LIMITS)
        assert told == limit
        assert 0 <= left < limit
        assert before <= reset <= time.time() + 62


def test_over_the_limit_is_too_many_requests(tmp_path: Path) -> None:
    """429 with the headers and when to come again; another key is not concerned."""
    tiers = "standard: {requests_per_minute: 2}, premium: {requests_per_minute: 3}, admin: {}"
    extra = settings(tmp_path, "/olla/management").replace("admin: {}", tiers)
    with threaded_fleet(NODES, extra) as running:
        base = f"{running.url}/olla/management"
        body = {**GENERATE, "max_tokens": 1}
        for key, limit in ((STANDARD, 2), (PREMIUM, 3)):
            statuses = [post(base, "/generate", body, key).status_code for _ in range(limit)]
            assert statuses == [200] * limit
            refused = post(base, "/generate", body, key)
            assert refused.status_code == 429
            assert refused.json()["error"]["type"] == "rate_limit_error"
            assert refused.headers["X-RateLimit-Limit"] == str(limit)
            assert refused.headers["X-RateLimit-Remaining"] == "0"
            assert int(refused.headers["Retry-After"]) >= 1


def test_keys_are_made_at_the_dashboard_and_used(base: str) -> None:
    """Made by an admin, listed without their secret, good for requests, refused once revoked."""
    page = requests.get(f"{base.partition('/api')[0].partition('/olla')[0]}/admin/api-keys")
    assert page.headers["Content-Type"].startswith("text/html")
    wanted = {"name": "mine", "user_id": "abc", "tier": "premium"}
    made = post(base, "/api-keys", wanted, ADMIN)
    assert made.status_code == 201
    key, id = made.json()["key"], made.json()["id"]
    assert post(base, "/generate", {**GENERATE, "max_tokens": 1}, key).status_code == 200
    listed = requests.get(f"{base}/api-keys", headers=bearer(ADMIN), timeout=10)
    assert id in {each["id"] for each in listed.json()["keys"]}
    assert key not in listed.text
    revoked = requests.delete(f"{base}/api-keys/{id}", headers=bearer(ADMIN), timeout=10)
    assert revoked.json()["is_active"] is False
    assert post(base, "/generate", GENERATE, key).status_code == 401


def test_keys_are_made_by_admins_only(base: str) -> None:
    """403 for others, 401 without a key."""
    assert post(base, "/api-keys", {"name": "x"}, PREMIUM).status_code == 403
    answer = requests.post(f"{base}/api-keys", json={"name": "x"}, timeout=10)
    assert answer.status_code == 401
