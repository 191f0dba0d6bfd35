"""What an Ollama API reference shows its readers works here: each call, its shape, its errors."""

import asyncio
import base64
import json
import shutil
import subprocess
import textwrap
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
import requests

from tests.routers import MANAGE, ThreadedFleet, threaded_fleet

NODES = {
    "gpu-1": ("llama2:latest", "llama2:7b", "nomic-embed-text:latest", "llava:latest"),
    "gpu-2": ("llama2:latest", "codellama:latest", "codellama:7b", "codellama:7b-code"),
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


@pytest.fixture(scope="module")
def fleet() -> Iterator[ThreadedFleet]:
    """Two nodes with the models the examples name, which callers may change."""
    with threaded_fleet(NODES, MANAGE) as running:
        yield running


@pytest.fixture(params=["", "/olla/ollama"], ids=["root", "prefix"])
def base(request: pytest.FixtureRequest, fleet: ThreadedFleet) -> str:
    """The router's address in the place of an Ollama server's."""
    return fleet.url + str(request.param)


GENERATE: list[dict[str, Any]] = [
    {"model": "llama2", "prompt": "Why is the sky blue?", "stream": False},
    {
        "model": "llama2",
        "prompt": "Explain quantum computing",
        "stream": False,
        "options": {
            "temperature": 0.7,
            "top_p": 0.9,
            "top_k": 40,
            "repeat_penalty": 1.1,
            "seed": 42,
            "num_predict": 500,
            "stop": ["</s>", "Human:"],
        },
    },
    {
        "model": "llama2",
        "prompt": "What is artificial intelligence?",
        "system": "You explain technology.",
        "template": "System: {{ .System }}\n\nUser: {{ .Prompt }}\n\nAssistant:",
        "context": [1, 2, 3],
        "options": {"temperature": 0.7},
        "stream": False,
    },
    {
        "model": "codellama:7b",
        "prompt": "Write a Python function to calculate fibonacci numbers",
        "options": {"temperature": 0.1, "stop": ["```"]},
        "stream": False,
    },
    {
        "model": "codellama:7b-code",
        "prompt": "def quicksort(arr):\n    if len(arr) <= 1:\n        return arr\n    ",
        "options": {"temperature": 0.2, "num_predict": 200},
        "stream": False,
    },
    {
        "model": "llava",
        "prompt": "What do you see in this image?",
        "images": [base64.b64encode(b"an image").decode()],
        "stream": False,
    },
    {
        "model": "llama2",
        "prompt": "Hello",
        "stream": False,
        "options": {"num_predict": 1},
    },
]


@pytest.mark.parametrize("body", GENERATE, ids=range(len(GENERATE)))
def test_generate_examples_answer_whole(base: str, body: dict[str, Any]) -> None:
    """Text, context, durations and counts come back in one object."""
    answer = requests.post(f"{base}/api/generate", json=body, timeout=10)
    assert answer.status_code == 200
    shown = answer.json()
    assert set(shown) >= FINAL | {"response", "context"}
    assert shown["model"] == body["model"]
    assert shown["response"]
    limit = body.get("options", {}).get("num_predict")
    assert limit is None or shown["eval_count"] <= limit


def test_a_streamed_story_ends_with_done(base: str) -> None:
    """One object a line; only the last is done, and it has the durations."""
    body = {"model": "llama2", "prompt": "Tell me a story", "stream": True}
    with requests.post(f"{base}/api/generate", json=body, stream=True, timeout=10) as answer:
        lines = [json.loads(line) for line in answer.iter_lines() if line]
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert set(lines[-1]) >= FINAL


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "Hello, how are you?"}],
        [
            {"role": "user", "content": "What is 2+2?"},
            {"role": "assistant", "content": "2+2 equals 4."},
            {"role": "user", "content": "What about 2+3?"},
        ],
    ],
    ids=["one turn", "three turns"],
)
def test_chat_examples_answer(base: str, messages: list[dict[str, str]]) -> None:
    """Whole, and streamed where the example does not say."""
    body: dict[str, Any] = {"model": "llama2", "messages": messages}
    answer = requests.post(f"{base}/api/chat", json={**body, "stream": False}, timeout=10).json()
    assert set(answer) >= FINAL
    assert answer["message"]["role"] == "assistant"
    with requests.post(f"{base}/api/chat", json=body, stream=True, timeout=10) as streamed:
        last = [json.loads(line) for line in streamed.iter_lines() if line][-1]
    assert last["done"] is True


def test_lists_and_details_have_the_documented_fields(base: str) -> None:
    """`/api/tags`, and `/api/show` by its older `name`."""
    models = requests.get(f"{base}/api/tags", timeout=10).json()["models"]
    for model in models:
        assert set(model) >= {"name", "modified_at", "size", "digest", "details"}
        assert set(model["details"]) >= {
            "format",
            "family",
            "families",
            "parameter_size",
            "quantization_level",
        }
    shown = requests.post(f"{base}/api/show", json={"name": "llama2"}, timeout=10).json()
    assert set(shown) >= {"modelfile", "parameters", "template", "details"}


def test_embeddings_are_one_vector(base: str) -> None:
    """The older call, once and for each of several texts."""
    for prompt in ("The quick brown fox jumps over the lazy dog", "Document content"):
        body = {"model": "nomic-embed-text", "prompt": prompt}
        answer = requests.post(f"{base}/api/embeddings", json=body, timeout=10).json()
        assert len(answer["embedding"]) > 10


def test_an_unknown_model_has_the_documented_error(base: str) -> None:
    """404 and an `error` that says to pull it."""
    body = {"model": "nonexistent", "prompt": "x", "stream": False}
    answer = requests.post(f"{base}/api/generate", json=body, timeout=10)
    assert answer.status_code == 404
    assert "'nonexistent' not found" in answer.json()["error"]
    assert "pull" in answer.json()["error"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_examples_answer(base: str) -> None:
    """The three curl calls and the health check, as they are typed."""
    calls = [
        ("/api/generate", {"model": "llama2", "prompt": "Explain relativity", "stream": False}),
        ("/api/generate", {"model": "codellama", "prompt": "Reverse a string", "stream": False}),
        ("/api/embeddings", {"model": "nomic-embed-text", "prompt": "This is a sample text"}),
    ]
    for path, body in calls:
        command = ["curl", "-sf", "-X", "POST", f"{base}{path}"]
        command += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
        answer = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        assert answer.get("response") or answer.get("embedding")
    subprocess.run(["curl", "-sf", f"{base}/api/tags"], capture_output=True, check=True)


def test_a_batch_of_prompts_at_once(base: str) -> None:
    """Concurrent requests of one aiohttp session are all answered."""

    async def one(session: aiohttp.ClientSession, prompt: str) -> Any:
        body = {"model": "llama2", "prompt": prompt, "stream": False}
        async with session.post(f"{base}/api/generate", json=body) as response:
            return await response.json()

    async def batch() -> list[Any]:
        async with aiohttp.ClientSession() as session:
            prompts = ["What is AI?", "Explain machine learning", "Define neural networks"]
            return await asyncio.gather(*(one(session, prompt) for prompt in prompts))

    assert all(answer["done"] for answer in asyncio.run(batch()))


def test_a_client_that_pulls_a_missing_model_and_tries_again_succeeds(base: str) -> None:
    """404, pull, and the next try answers."""
    body = {"model": "smollm", "prompt": "x", "stream": False}
    try:
        assert requests.post(f"{base}/api/generate", json=body, timeout=10).status_code == 404
        pulled = requests.post(f"{base}/api/pull", json={"name": "smollm"}, timeout=10)
        assert [json.loads(line) for line in pulled.iter_lines()][-1] == {"status": "success"}
        answer = requests.post(f"{base}/api/generate", json=body, timeout=10)
        assert answer.status_code == 200
    finally:
        requests.delete(f"{base}/api/delete", json={"name": "smollm"}, timeout=10)


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
def test_javascript_clients_work_with_fetch(base: str) -> None:
    """Generate, stream with a reader, chat, embed and list, from Node's fetch."""
    script = """
    const base = process.argv[1];
    const post = (path, body) => fetch(base + path, {
        method: "POST",
        headers: {"Content-Type": "application/json"},
        body: JSON.stringify(body),
    });
    const whole = await (await post("/api/generate",
        {model: "llama2", prompt: "Explain photosynthesis", stream: false})).json();
    const streamed = await post("/api/generate",
        {model: "llama2", prompt: "Tell me a story", stream: true});
    const reader = streamed.body.getReader();
    const decoder = new TextDecoder();
    let text = "";
    for (;;) {
        const {done, value} = await reader.read();
        if (done) break;
        text += decoder.decode(value, {stream: true});
    }
    const parts = text.trim().split("\\n").map((line) => JSON.parse(line));
    const chat = await (await post("/api/chat", {model: "llama2", stream: false,
        messages: [{role: "user", content: "What is quantum computing?"}]})).json();
    const vector = await (await post("/api/embeddings",
        {model: "nomic-embed-text", prompt: "a text"})).json();
    const list = await (await fetch(base + "/api/tags")).json();
    console.log(JSON.stringify({
        whole: whole.response.length > 0,
        parts: parts.length > 2 && parts.at(-1).done,
        chat: chat.message.role,
        vector: vector.embedding.length > 10,
        list: list.models.length > 0,
    }));
    """
    command = ["node", "--input-type=module", "-e", textwrap.dedent(script), base]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=15)
    expected = {"whole": True, "parts": True, "chat": "assistant", "vector": True, "list": True}
    assert json.loads(ran.stdout) == expected
