"""What the Olla router's API reference shows works here, paths and headers included."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.routers import ThreadedFleet, threaded_fleet

NODES = {
    "local-ollama": ("llama3.2:latest", "nomic-embed-text:latest"),
    "other": ("llama3.2:latest", "mistral:latest"),
}
FINAL = {
    "model",
    "created_at",
    "done",
    "total_duration",
    "load_duration",
    "prompt_eval_count",
    "prompt_eval_duration",
    "eval_count",
    "eval_duration",
}
SAMPLING = {"temperature": 0.7, "top_p": 0.9, "max_tokens": 200}
GENERATE: dict[str, Any] = {
    "model": "llama3.2:latest",
    "prompt": "Why is the sky blue?",
    "stream": False,
    "options": SAMPLING,
}
CHAT: dict[str, Any] = {
    "model": "llama3.2:latest",
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "stream": False,
    "options": {"temperature": 0.7},
}
COMPLETION: dict[str, Any] = {
    "model": "llama3.2:latest",
    "messages": [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "What is 2+2?"},
    ],
    "temperature": 0.7,
    "max_tokens": 100,
    "stream": False,
}


@pytest.fixture(scope="module")
def fleet() -> Iterator[ThreadedFleet]:
    """Two nodes with the models the examples name."""
    with threaded_fleet(NODES) as running:
        yield running


@pytest.fixture
def base(fleet: ThreadedFleet) -> str:
    """The documented prefix."""
    return f"{fleet.url}/olla/ollama"


def post(url: str, body: dict[str, Any], **options: Any) -> requests.Response:
    """A POST that must succeed."""
    answer = requests.post(url, json=body, timeout=10, **options)
    assert answer.status_code == 200, answer.text
    return answer


def check_headers(answer: requests.Response) -> None:
    """The documented response headers."""
    assert answer.headers["X-Olla-Endpoint"] in NODES
    assert answer.headers["X-Olla-Model"]
    assert answer.headers["X-Olla-Backend-Type"] == "ollama"
    assert answer.headers["X-Olla-Response-Time"]


def test_the_prefix_itself_is_a_health_check(base: str) -> None:
    """`GET /olla/ollama/` answers as an Ollama server does."""
    assert requests.get(f"{base}/", timeout=10).text == "Ollama is running"


def test_generate(base: str) -> None:
    """Whole: every documented field, and the headers."""
    answer = post(f"{base}/api/generate", GENERATE)
    assert set(answer.json()) >= FINAL | {"response", "context"}
    check_headers(answer)


def test_generate_streams(base: str) -> None:
    """Streamed: records until `done`."""
    with post(f"{base}/api/generate", {**GENERATE, "stream": True}, stream=True) as answer:
        assert answer.headers["Content-Type"].startswith("application/x-ndjson")
        check_headers(answer)
        lines = [json.loads(line) for line in answer.iter_lines() if line]
    assert lines[-1]["done"]
    assert "total_duration" in lines[-1]


def test_chat(base: str) -> None:
    """The assistant's message with durations and counts."""
    answer = post(f"{base}/api/chat", CHAT)
    assert set(answer.json()) >= FINAL
    assert answer.json()["message"]["role"] == "assistant"
    check_headers(answer)


def test_chat_completion(base: str) -> None:
    """OpenAI's shape, usage included."""
    answer = post(f"{base}/v1/chat/completions", COMPLETION)
    shown = answer.json()
    assert set(shown) >= {"id", "object", "created", "model", "choices", "usage"}
    assert shown["object"] == "chat.completion"
    assert shown["choices"][0]["message"]["role"] == "assistant"
    assert shown["choices"][0]["finish_reason"] in ("stop", "length")
    check_headers(answer)


def test_chat_completion_streams(base: str) -> None:
    """Events with deltas, then [DONE]."""
    body = {**COMPLETION, "stream": True}
    with post(f"{base}/v1/chat/completions", body, stream=True) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        events = [line[6:] for line in answer.iter_lines() if line.startswith(b"data: ")]
    assert events[-1] == b"[DONE]"
    assert json.loads(events[0])["object"] == "chat.completion.chunk"


def test_completion_and_embeddings_in_openais_format(base: str) -> None:
    """The two other OpenAI calls that are listed."""
    text = {"model": "llama3.2:latest", "prompt": "Once", "max_tokens": 5}
    assert post(f"{base}/v1/completions", text).json()["choices"][0]["text"]
    vectors = {"model": "nomic-embed-text", "input": "a text"}
    assert post(f"{base}/v1/embeddings", vectors).json()["data"][0]["embedding"]


def test_embeddings(base: str) -> None:
    """One vector."""
    body = {"model": "nomic-embed-text", "prompt": "The quick brown fox jumps over the lazy dog"}
    answer = post(f"{base}/api/embeddings", body)
    assert len(answer.json()["embedding"]) > 10
    check_headers(answer)


def test_tags_lists_the_whole_fleet(base: str) -> None:
    """Models of both nodes with every documented field."""
    models = requests.get(f"{base}/api/tags", timeout=10).json()["models"]
    assert {"llama3.2:latest", "mistral:latest"} <= {model["name"] for model in models}
    for model in models:
        assert set(model) >= {"name", "model", "modified_at", "size", "digest", "details"}
        assert set(model["details"]) >= {"parent_model", "format", "family", "families"}


def test_models_in_openais_format(base: str) -> None:
    """The same list as OpenAI clients read it."""
    listed = requests.get(f"{base}/v1/models", timeout=10).json()
    assert listed["object"] == "list"
    assert "mistral:latest" in {model["id"] for model in listed["data"]}


def test_show(base: str) -> None:
    """Details with `model_info`."""
    answer = post(f"{base}/api/show", {"name": "llama3.2:latest"})
    assert set(answer.json()) >= {"modelfile", "parameters", "template", "details", "model_info"}
    check_headers(answer)


def test_ps_shows_what_runs_where(base: str) -> None:
    """After a request its model is listed, with the endpoint it is on."""
    used = post(f"{base}/api/generate", {**GENERATE, "model": "mistral"})
    running = requests.get(f"{base}/api/ps", timeout=10).json()["models"]
    by_name = {model["name"]: model for model in running}
    assert by_name["mistral:latest"]["endpoint"] == used.headers["X-Olla-Endpoint"]


def test_requests_are_forwarded_with_the_documented_headers(fleet: ThreadedFleet) -> None:
    """The request id, and who asked whom over what."""
    answer = post(f"{fleet.url}/olla/ollama/api/generate", GENERATE)
    node = fleet.fleet.nodes[answer.headers["X-Olla-Endpoint"]]
    seen = next(each for each in reversed(node.seen) if each.target == "/api/generate")
    assert seen.header("X-Olla-Request-ID") == answer.headers["X-Olla-Request-ID"]
    assert seen.header("X-Forwarded-For") == "127.0.0.1"
    assert seen.header("X-Forwarded-Host") == fleet.url.removeprefix("http://")
    assert seen.header("X-Forwarded-Proto") == "http"
    assert seen.header("Host") == node.url.removeprefix("http://")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/generate", GENERATE),
        ("/api/chat", CHAT),
        ("/v1/chat/completions", COMPLETION),
        ("/api/embeddings", {"model": "nomic-embed-text", "prompt": "The quick brown fox"}),
        ("/api/show", {"name": "llama3.2:latest"}),
        ("/api/tags", None),
    ],
)
def test_curl_examples_answer(base: str, path: str, body: dict[str, Any] | None) -> None:
    """Each documented curl call, as it is typed."""
    command = ["curl", "-sf", "-X", "GET" if body is None else "POST", f"{base}{path}"]
    if body is not None:
        command += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
    assert json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
