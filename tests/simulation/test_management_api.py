"""Pull, push, create, copy, delete and blobs on a simulated node."""

import hashlib
import os
from collections.abc import AsyncIterator

import aiohttp
import pytest

from olla.simulation.server import SimulatedNode
from tests.simulation.asking import ask, lines


async def names(http: aiohttp.ClientSession, node: SimulatedNode) -> list[str]:
    """What is on disk, the newest first."""
    async with http.get(node.url + "/api/tags") as answer:
        return [each["name"] for each in (await answer.json())["models"]]


async def test_pull_reports_and_adds_the_model(
    http: aiohttp.ClientSession, node: SimulatedNode
) -> None:
    """Progress with total and completed, at last success; the model is listed first."""
    records = await lines(http, node, "/api/pull", {"model": "smollm"})
    assert records[0] == {"status": "pulling manifest"}
    assert records[-1] == {"status": "success"}
    progress = [each["completed"] for each in records if "completed" in each]
    assert progress == sorted(progress)
    assert progress[-1] == 990_731_000
    assert (await names(http, node))[0] == "smollm:latest"


async def test_pull_whole_answers_once(http: aiohttp.ClientSession, node: SimulatedNode) -> None:
    """Without a stream there is one object, the last."""
    answer = await ask(http, node, "/api/pull", {"name": "smollm", "stream": False})
    assert answer == (200, {"status": "success"})


async def test_pulling_what_nobody_has_fails_after_the_first_record(
    http: aiohttp.ClientSession, node: SimulatedNode
) -> None:
    """In a stream the error is a record, else it has a status."""
    records = await lines(http, node, "/api/pull", {"model": "no-such"})
    error = {"error": "pull model manifest: file does not exist"}
    assert records == [{"status": "pulling manifest"}, error]
    body = {"model": "no-such", "stream": False}
    assert await ask(http, node, "/api/pull", body) == (500, error)


async def test_copy_makes_a_second_name_for_one_model(
    http: aiohttp.ClientSession, node: SimulatedNode
) -> None:
    """200 with an empty body; both names are one instance in memory."""
    body = {"source": "llama3.2", "destination": "mine"}
    assert await ask(http, node, "/api/copy", body) == (200, None)
    assert "mine:latest" in await names(http, node)
    for name in ("llama3.2", "mine"):
        await ask(http, node, "/api/generate", {"model": name})
    assert node.loads == 1


async def test_create_from_another_model(http: aiohttp.ClientSession, node: SimulatedNode) -> None:
    """The new name is there after `success`."""
    records = await lines(http, node, "/api/create", {"model": "mine", "from": "llama3.2"})
    assert records[-1] == {"status": "success"}
    assert "mine:latest" in await names(http, node)


async def test_delete_removes_the_name_and_leaves_the_memory(
    http: aiohttp.ClientSession, node: SimulatedNode
) -> None:
    """DELETE with a JSON body; what is in memory stays until it expires."""
    await ask(http, node, "/api/generate", {"model": "llama3.2"})
    assert await ask(http, node, "/api/delete", {"model": "llama3.2"}, "DELETE") == (200, None)
    assert "llama3.2:latest" not in await names(http, node)
    async with http.get(node.url + "/api/ps") as answer:
        assert len((await answer.json())["models"]) == 1
    status, _ = await ask(http, node, "/api/generate", {"model": "llama3.2", "prompt": "x"})
    assert status == 404


async def test_push_reports(http: aiohttp.ClientSession, node: SimulatedNode) -> None:
    """Progress, at last success."""
    records = await lines(http, node, "/api/push", {"model": "llama3.2"})
    assert records[-1] == {"status": "success"}


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/api/copy", {"source": "no", "destination": "x"}, 404),
        ("POST", "/api/copy", {"source": "llama3.2"}, 400),
        ("DELETE", "/api/delete", {"model": "no"}, 404),
        ("DELETE", "/api/delete", {}, 400),
        ("POST", "/api/push", {"model": "no"}, 404),
        ("POST", "/api/push", {}, 400),
        ("POST", "/api/pull", {}, 400),
        ("POST", "/api/create", {"model": "x"}, 400),
        ("POST", "/api/create", {"model": "x", "from": "no"}, 404),
        ("POST", "/api/create", {"model": "x", "files": {"a": "sha256:0"}}, 400),
        ("POST", "/api/create", {"model": "x", "files": {"a": 5}}, 400),
    ],
)
async def test_what_cannot_be_done_has_a_status(
    http: aiohttp.ClientSession,
    node: SimulatedNode,
    method: str,
    path: str,
    body: object,
    status: int,
) -> None:
    """Errors that are known before any progress come with a status and a text."""
    got, answer = await ask(http, node, path, body, method)
    assert got == status
    assert answer["error"]


async def test_a_blob_is_checked_and_a_model_made_of_it(
    http: aiohttp.ClientSession, node: SimulatedNode
) -> None:
    """404 before, 201 for new ones, 200 after; the model has the size of its files."""
    content = os.urandom(3_000_000)
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    url = f"{node.url}/api/blobs/{digest}"

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(content), 100_000):
            yield content[at : at + 100_000]

    async with http.head(url) as answer:
        assert answer.status == 404
    for status in (201, 200):
        async with http.post(url, data=pieces()) as answer:
            assert answer.status == status
    async with http.head(url) as answer:
        assert answer.status == 200
    body = {"model": "made", "files": {"model.gguf": digest}, "stream": False}
    assert await ask(http, node, "/api/create", body) == (200, {"status": "success"})
    spec = node.storage.find("made")
    assert spec is not None
    assert spec.size == len(content)


async def test_a_blob_with_another_digest_is_refused(
    http: aiohttp.ClientSession, node: SimulatedNode
) -> None:
    """What does not hash to its name is not kept; what is no digest is a 400."""
    wrong = f"{node.url}/api/blobs/sha256:{'0' * 64}"
    async with http.post(wrong, data=b"content") as answer:
        assert answer.status == 400
        assert "digest mismatch" in (await answer.json())["error"]
    async with http.head(wrong) as answer:
        assert answer.status == 404
    async with http.head(f"{node.url}/api/blobs/sha256:12") as answer:
        assert answer.status == 400
