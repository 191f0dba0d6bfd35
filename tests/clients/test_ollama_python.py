"""The official `ollama` client works through the router, under the prefix and at the root."""

from collections.abc import Iterator
from contextlib import ExitStack, closing

import ollama
import pytest

from tests.routers import ThreadedFleet, threaded_fleet

MESSAGES = [{"role": "user", "content": "Why is the sky blue?"}]


@pytest.fixture
def client(base: str) -> Iterator[ollama.Client]:
    """Provide a client of the router."""
    with closing(ollama.Client(host=base)) as client:
        yield client


def test_generate_returns_token_counts(client: ollama.Client) -> None:
    """A complete response has text, its done flag and the node's token counts."""
    answer = client.generate("llama3.2", "Why is the sky blue?")
    assert answer.response
    assert answer.done
    assert answer.model == "llama3.2"
    assert answer.eval_count
    assert answer.prompt_eval_count


def test_generate_streams_until_done(client: ollama.Client) -> None:
    """A stream has many parts and ends with `done`."""
    parts = list(client.generate("llama3.2", "Tell me a story", stream=True))
    assert len(parts) > 2
    assert parts[-1].done
    assert not any(part.done for part in parts[:-1])


def test_chat_returns_a_message(client: ollama.Client) -> None:
    """A chat response has the assistant's message."""
    answer = client.chat("llama3.2", MESSAGES)
    assert answer.message.role == "assistant"
    assert answer.message.content


def test_a_streamed_chat_has_the_same_text(client: ollama.Client) -> None:
    """With the same seed, the parts of a stream add up to the complete response."""
    options = {"seed": 7, "temperature": 0}
    whole = client.chat("llama3.2", MESSAGES, options=options).message.content
    parts = client.chat("llama3.2", MESSAGES, options=options, stream=True)
    assert "".join(part.message.content or "" for part in parts) == whole


def test_embed_returns_a_vector_per_input(client: ollama.Client) -> None:
    """Several inputs return several vectors."""
    answer = client.embed("nomic-embed-text", ["one", "two"])
    assert len(answer.embeddings) == 2
    assert len(answer.embeddings[0]) > 10
    assert client.embeddings("nomic-embed-text", "one").embedding


def test_list_merges_the_models_of_all_nodes(client: ollama.Client) -> None:
    """Each model is listed once."""
    names = [model.model for model in client.list().models]
    assert {"llama3.2:latest", "mistral:latest", "codellama:7b-code"} <= set(names)
    assert len(names) == len(set(names))


def test_ps_shows_a_model_that_was_just_used(client: ollama.Client) -> None:
    """A model is resident right after it has answered."""
    client.generate("mistral", "hello")
    running = {model.model: model for model in client.ps().models}
    assert running["mistral:latest"].size_vram
    assert running["mistral:latest"].expires_at


def test_show_describes_a_model(client: ollama.Client) -> None:
    """The details come from a node that has the model."""
    shown = client.show("codellama")
    assert shown.details
    assert shown.details.format == "gguf"
    assert shown.modelinfo


def test_an_unknown_model_is_a_response_error_404(client: ollama.Client) -> None:
    """The client raises its error type, and the message says how to get the model."""
    with pytest.raises(ollama.ResponseError) as caught:
        client.generate("no-such-model", "hello")
    assert caught.value.status_code == 404
    assert "ollama pull no-such-model" in caught.value.error


async def test_the_async_client_works_too(base: str) -> None:
    """Generate, stream, embed and list through AsyncClient."""
    client = ollama.AsyncClient(host=base)
    async with client._client:
        await _use(client)


async def _use(client: ollama.AsyncClient) -> None:
    assert (await client.generate("llama3.2", "hello")).done
    parts = [part async for part in await client.chat("llama3.2", MESSAGES, stream=True)]
    assert parts[-1].done
    assert (await client.embed("nomic-embed-text", "one")).embeddings
    assert (await client.list()).models
    with pytest.raises(ollama.ResponseError) as caught:
        await client.chat("no-such-model", MESSAGES)
    assert caught.value.status_code == 404


def test_models_can_be_managed(fleet: ThreadedFleet) -> None:
    """Pull, copy, create and delete reach a node, and the lists are updated at once."""
    with closing(ollama.Client(host=fleet.url)) as client:
        _manage(client)


def _manage(client: ollama.Client) -> None:
    assert client.pull("smollm").status == "success"
    assert "smollm:latest" in {model.model for model in client.list().models}
    client.copy("smollm", "mine")
    assert "mine:latest" in {model.model for model in client.list().models}
    progress = list(client.create("derived", from_="smollm", stream=True))
    assert progress[-1].status == "success"
    for name in ("smollm", "mine", "derived"):
        client.delete(name)
    assert "mine:latest" not in {model.model for model in client.list().models}


def test_a_blob_is_uploaded_to_the_node_that_creates_from_it(
    fleet: ThreadedFleet, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A `create` that names a blob runs on the node that received the blob."""
    path = tmp_path_factory.mktemp("blob") / "model.gguf"
    path.write_bytes(b"GGUF" + bytes(range(256)) * 4096)
    with closing(ollama.Client(host=fleet.url)) as client:
        digest = client.create_blob(path)
        assert client.create("from-blob", files={"model.gguf": digest}).status == "success"
        client.delete("from-blob")


def test_all_nodes_down_is_a_response_error_503() -> None:
    """The client raises its error type, and the message advises to retry."""
    with ExitStack() as stack:
        fleet = stack.enter_context(threaded_fleet({"only": ("llama3.2:latest",)}))
        client = stack.enter_context(closing(ollama.Client(host=fleet.url)))
        assert client.generate("llama3.2", "hello").done
        fleet.call(fleet.fleet.nodes["only"].refuse())
        with pytest.raises(ollama.ResponseError) as caught:
            client.generate("llama3.2", "hello")
        assert caught.value.status_code in (502, 503)
        with pytest.raises(ollama.ResponseError) as caught:
            client.generate("llama3.2", "hello")
        assert caught.value.status_code == 503
        assert "try again" in caught.value.error
