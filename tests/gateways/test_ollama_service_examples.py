"""What an Ollama service with keys and limits shows its readers works here: calls, limits, metrics.

Its errors are Ollama's on Ollama's paths, so that Ollama's own clients understand them.
"""

import json
import re
import shlex
import shutil
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.routers import NODES, ThreadedFleet, threaded_fleet

KEY = "your-api-key"
"""The key in the examples: it stands in the configuration."""
ACCESS = """
access:
  require_key: true
  keys:
    - {name: docs, key: %s, operations: [generate, embed, list]}
  categories:
    generation: {requests_per_minute: %d, burst: %d}
    management: {requests_per_minute: 1000, burst: 1200}
    monitoring: {requests_per_minute: 1000, burst: 1200}
"""
SHOWN = {"Authorization": f"Bearer {KEY}"}
BODY: dict[str, Any] = {"model": "llama3.2", "prompt": "Why is the sky blue?"}
LIMITS = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")


def settings(path: Path, rate: int = 100, burst: int = 120) -> str:
    """The documented limits, with a store of its own."""
    return f"store: {{url: 'sqlite:///{path / 'olla.db'}'}}" + ACCESS % (KEY, rate, burst)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[ThreadedFleet]:
    """A router with the documented limits."""
    with threaded_fleet(NODES, settings(tmp_path)) as running:
        yield running


@pytest.fixture(params=["", "/olla/ollama"], ids=["root", "prefix"])
def base(request: pytest.FixtureRequest, fleet: ThreadedFleet) -> str:
    """The service's address."""
    return fleet.url + str(request.param)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_example_generates(base: str) -> None:
    """As it is typed, but for the host: a stream, as Ollama's default is."""
    typed = """curl -X POST https://ollama.example.com/api/generate \\
  -H "Authorization: Bearer your-api-key" \\
  -H "Content-Type: application/json" \\
  -d '{
    "model": "llama3.2",
    "prompt": "Why is the sky blue?"
  }'"""
    typed = typed.replace("https://ollama.example.com", base).replace("\\\n", " ")
    command = shlex.split(typed)
    command[1:1] = ["-sf"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=15)
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert all(line["model"] == "llama3.2" for line in lines)


@pytest.mark.parametrize("streamed", [True, False])
def test_the_python_example_generates(base: str, streamed: bool) -> None:
    """Its request is answered; its last line wants one object, for which Ollama has to be told."""
    response = requests.post(
        f"{base}/api/generate",
        headers={"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"},
        json={**BODY, **({} if streamed else {"stream": False})},
        timeout=10,
    )
    assert response.status_code == 200
    answer = json.loads(response.text.splitlines()[-1]) if streamed else response.json()
    assert answer["done"] is True
    assert answer["eval_count"] > 0


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
def test_the_javascript_example_generates(base: str) -> None:
    """With fetch; its limits can be read by the script."""
    script = """
    const BASE_URL = process.argv[1];
    const API_KEY = "your-api-key";
    async function generateCompletion(prompt, model = 'llama3.2') {
      const response = await fetch(`${BASE_URL}/api/generate`, {
        method: 'POST',
        headers: {
          'Authorization': `Bearer ${API_KEY}`,
          'Content-Type': 'application/json'
        },
        body: JSON.stringify({ model, prompt, stream: false })
      });
      console.error(response.headers.get("X-RateLimit-Limit"));
      return await response.json();
    }
    console.log((await generateCompletion("Why is the sky blue?")).done);
    """
    command = ["node", "--input-type=module", "-e", textwrap.dedent(script), base]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=15)
    assert (ran.stdout, ran.stderr) == ("true\n", "100\n")


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({}, "an API key is required"),
        ({"Authorization": "Bearer another-key"}, "Invalid API key"),
        ({"Authorization": f"Basic {KEY}"}, "API key"),
        ({"X-API-Key": "oa-nobody"}, "Invalid API key"),
    ],
)
def test_without_a_key_of_its_own_nobody_gets_in(
    base: str, headers: dict[str, str], words: str
) -> None:
    """401 for generation and lists, in Ollama's shape."""
    for method, path in (("POST", "/api/generate"), ("GET", "/api/tags"), ("GET", "/api/ps")):
        answer = requests.request(method, base + path, json=BODY, headers=headers, timeout=10)
        assert answer.status_code == 401
        assert words in answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "body", "limit", "status"),
    [
        ("POST", "/api/generate", {**BODY, "stream": False}, 100, 200),
        ("POST", "/api/generate", BODY, 100, 200),
        ("POST", "/api/chat", {"model": "llama3.2", "messages": []}, 100, 200),
        ("POST", "/api/embed", {"model": "nomic-embed-text", "input": "x"}, 100, 200),
        ("POST", "/v1/completions", BODY, 100, 200),
        ("POST", "/v1/chat/completions", {"model": "llama3.2", "messages": []}, 100, 400),
        ("POST", "/api/generate", {**BODY, "model": "nope"}, 100, 404),
        ("POST", "/api/generate", {"prompt": "x"}, 100, 400),
        ("GET", "/api/tags", None, 1000, 200),
        ("GET", "/v1/models", None, 1000, 200),
        ("POST", "/api/show", {"model": "llama3.2"}, 1000, 200),
        ("POST", "/api/show", {"model": "nope"}, 1000, 404),
        ("GET", "/api/ps", None, 1000, 200),
        ("GET", "/api/version", None, 1000, 200),
    ],
)
def test_every_answer_tells_what_is_left(
    base: str, method: str, path: str, body: Any, limit: int, status: int
) -> None:
    """Of its category: streams, lists and errors as well."""
    answer = requests.request(method, base + path, json=body, headers=SHOWN, timeout=10)
    assert answer.status_code == status
    shown = [int(answer.headers[name]) for name in LIMITS]
    assert shown[0] == limit
    # A burst of a fifth more is there first, and does not show.
    assert shown[1] == limit
    assert 0 <= shown[2] <= 1


def test_a_limit_that_is_reached_speaks_the_dialect_of_the_path(tmp_path: Path) -> None:
    """429 with `Retry-After`, for generation alone; its burst may come at once before."""
    with threaded_fleet(NODES, settings(tmp_path, rate=1, burst=3)) as fleet:
        url = fleet.url
        ask = {**BODY, "stream": False}
        chat = {"model": "llama3.2", "messages": [{"role": "user", "content": "x"}]}
        left = []
        for _ in range(3):
            answer = requests.post(f"{url}/api/generate", json=ask, headers=SHOWN, timeout=10)
            assert answer.status_code == 200
            left.append(answer.headers["X-RateLimit-Remaining"])
        assert left == ["1", "1", "0"]
        for path, body in (
            ("/api/generate", ask),
            ("/api/generate", BODY),
            ("/v1/chat/completions", chat),
            ("/olla/anthropic/v1/messages", {**chat, "max_tokens": 5}),
            ("/chat", {"message": "x"}),
        ):
            answer = requests.post(url + path, json=body, headers=SHOWN, timeout=10)
            assert answer.status_code == 429
            assert 1 <= int(answer.headers["Retry-After"]) <= 60
            assert answer.headers["X-RateLimit-Limit"] == "1"
            assert answer.headers["X-RateLimit-Remaining"] == "0"
            assert 1 <= int(answer.headers["X-RateLimit-Reset"]) <= 180
            error = answer.json()["error"]
            if path == "/api/generate":
                assert error.startswith("Rate limit exceeded")
            elif path == "/chat":
                assert error["code"] == "rate_limit_exceeded"
                assert error["details"]["retry_after_seconds"] > 0
            else:
                assert error["type"] == "rate_limit_error"
        assert requests.get(f"{url}/api/tags", headers=SHOWN, timeout=10).status_code == 200


def test_each_key_has_limits_of_its_own(tmp_path: Path) -> None:
    """What one has used up is there for another."""
    other = "- {name: other, key: another-api-key}\n    - {name: docs"
    text = settings(tmp_path, rate=1, burst=1).replace("- {name: docs", other)
    with threaded_fleet(NODES, text) as fleet:
        found = [
            requests.post(
                f"{fleet.url}/api/generate",
                json={**BODY, "stream": False},
                headers={"Authorization": f"Bearer {key}"},
                timeout=10,
            ).status_code
            for key in (KEY, KEY, "another-api-key", "another-api-key")
        ]
    assert found == [200, 429, 200, 429]


def test_the_documented_metrics_are_there(fleet: ThreadedFleet) -> None:
    """Requests and latencies, loads, resources, errors and tokens; for keys with `list`."""
    for model, status in (("llama3.2", 200), ("nope", 404)):
        body = {**BODY, "model": model, "stream": False}
        answer = requests.post(f"{fleet.url}/api/generate", json=body, headers=SHOWN, timeout=10)
        assert answer.status_code == status
    text = requests.get(f"{fleet.url}/metrics", headers=SHOWN, timeout=10).text

    def value(pattern: str) -> float:
        found = re.findall(rf"^{pattern} (\S+)$", text, re.MULTILINE)
        return sum(map(float, found))

    assert value(r'olla_requests_total\{.*operation="generate",status="200"\}') == 1
    assert value(r'olla_requests_total\{.*operation="generate",status="404"\}') == 1
    assert value(r'olla_request_duration_seconds_count\{operation="generate"\}') == 2
    assert value(r"olla_time_to_first_byte_seconds_count\{.*\}") == 1
    assert value(r"olla_model_load_seconds_count\{.*\}") >= 1
    assert value(r"olla_models_resident\{.*\}") >= 0
    assert value(r"process_resident_memory_bytes") > 0
    assert value(r'olla_failures_total\{kind="model_not_found",.*\}') == 1
    assert value(r'olla_tokens_total\{direction="output",.*\}') > 0
    assert value(r'olla_tokens_total\{direction="prompt",.*\}') > 0
