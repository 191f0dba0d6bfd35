"""Which request target asks for what."""

import pytest

from olla.dialects.dialect import Operation, Right
from olla.dialects.paths import BodyUse, Paths, ScopeSpec, WrongMethod
from olla.failures import Failed, Kind
from olla.fleet.profiles import PROFILES

PATHS = Paths(
    [ScopeSpec(row.name, row.prefixes, row.dialects) for row in PROFILES.values()],
    root_enabled=True,
)

NATIVE = [
    ("GET", "/", Operation.HEARTBEAT, Right.LIST),
    ("HEAD", "/", Operation.HEARTBEAT, Right.LIST),
    ("GET", "/api/version", Operation.VERSION, Right.LIST),
    ("HEAD", "/api/version", Operation.VERSION, Right.LIST),
    ("GET", "/api/tags", Operation.LIST, Right.LIST),
    ("HEAD", "/api/tags", Operation.LIST, Right.LIST),
    ("GET", "/api/ps", Operation.RUNNING, Right.LIST),
    ("POST", "/api/show", Operation.SHOW, Right.LIST),
    ("POST", "/api/generate", Operation.GENERATE, Right.GENERATE),
    ("POST", "/api/chat", Operation.CHAT, Right.GENERATE),
    ("POST", "/api/embed", Operation.EMBED, Right.EMBED),
    ("POST", "/api/embeddings", Operation.EMBED, Right.EMBED),
    ("POST", "/api/pull", Operation.PULL, Right.MANAGE),
    ("POST", "/api/push", Operation.PUSH, Right.MANAGE),
    ("POST", "/api/create", Operation.CREATE, Right.MANAGE),
    ("POST", "/api/copy", Operation.COPY, Right.MANAGE),
    ("DELETE", "/api/delete", Operation.DELETE, Right.MANAGE),
    ("HEAD", "/api/blobs/sha256:" + "a" * 64, Operation.BLOB, Right.MANAGE),
    ("POST", "/api/blobs/sha256:" + "a" * 64, Operation.BLOB, Right.MANAGE),
    ("GET", "/v1/models", Operation.LIST, Right.LIST),
    ("GET", "/v1/models/llama3", Operation.MODEL, Right.LIST),
    ("POST", "/v1/chat/completions", Operation.CHAT, Right.GENERATE),
    ("POST", "/v1/completions", Operation.GENERATE, Right.GENERATE),
    ("POST", "/v1/embeddings", Operation.EMBED, Right.EMBED),
    ("POST", "/v1/responses", Operation.RESPONSES, Right.GENERATE),
    ("POST", "/v1/messages", Operation.MESSAGES, Right.GENERATE),
    ("POST", "/v1/audio/transcriptions", Operation.TRANSCRIBE, Right.GENERATE),
]


def kind_of(method: str, target: str, paths: Paths = PATHS) -> Kind:
    with pytest.raises(Failed) as caught:
        paths.resolve(method, target)
    return caught.value.failure.kind


@pytest.mark.parametrize(("method", "path", "operation", "right"), NATIVE)
@pytest.mark.parametrize("prefix", ["", "/olla/ollama"])
def test_ollama_is_the_same_at_the_root_and_under_its_prefix(
    prefix: str, method: str, path: str, operation: Operation, right: Right
) -> None:
    """A client that takes no path prefix gets what one with the prefix gets."""
    target = PATHS.resolve(method, prefix + path)
    assert target.operation is operation
    assert target.right is right
    assert target.upstream_target == path
    # At the root, every endpoint may serve it that speaks the dialect or that it is translated for.
    assert target.profiles == (None if prefix == "" else {"ollama"})
    assert target.prefix == prefix


@pytest.mark.parametrize(
    ("target", "dialect"),
    [
        ("/olla/ollama/api/chat", "ollama"),
        ("/olla/ollama/v1/chat/completions", "openai"),
        ("/olla/ollama/v1/messages", "anthropic"),
        ("/olla/openai/v1/chat/completions", "openai"),
        ("/olla/proxy/v1/embeddings", "openai"),
        ("/olla/anthropic/v1/messages", "anthropic"),
        ("/olla/anthropic/v1/messages/count_tokens", "anthropic"),
        ("/olla/vllm/v1/chat/completions", "openai"),
        ("/olla/llamacpp/v1/messages", "anthropic"),
        ("/olla/lm/v1/messages", "anthropic"),
    ],
)
def test_a_path_names_its_dialect(target: str, dialect: str) -> None:
    """The wire format follows from the path alone."""
    assert PATHS.resolve("POST", target).dialect.name == dialect


def test_anthropic_lists_are_in_its_own_format() -> None:
    """A list below the Anthropic prefix is Anthropic's."""
    assert PATHS.resolve("GET", "/olla/anthropic/v1/models").dialect.name == "anthropic"


@pytest.mark.parametrize("row", PROFILES.values(), ids=lambda row: row.name)
def test_every_kind_of_server_is_reached_by_each_of_its_prefixes(row) -> None:
    """A request under a prefix can only go to servers of that kind."""
    for prefix in row.prefixes:
        target = PATHS.resolve("POST", f"/olla/{prefix}/v1/chat/completions")
        assert target.profiles == {row.name}
        assert target.upstream_target == "/v1/chat/completions"
        assert target.operation is Operation.CHAT


@pytest.mark.parametrize("row", PROFILES.values(), ids=lambda row: row.name)
def test_a_server_without_anthropic_has_no_messages(row) -> None:
    """Where a kind of server does not speak Anthropic's format, its path is nothing special."""
    for prefix in row.prefixes:
        target = PATHS.resolve("POST", f"/olla/{prefix}/v1/messages")
        known = target.operation is Operation.MESSAGES
        assert known == ("anthropic" in row.dialects)


@pytest.mark.parametrize(
    "path",
    [
        "/completion",
        "/infill",
        "/embedding",
        "/rerank",
        "/score",
        "/pooling",
        "/tokenize",
        "/v1/score",
        "/v1/rerank",
        "/classify",
        "/generate",
        "/chat/completions",
    ],
)
def test_servers_own_inference_needs_the_right_to_infer(path: str) -> None:
    """Inference paths beside the OpenAI API are not mistaken for management."""
    for prefix in ("llamacpp", "vllm", "sglang"):
        target = PATHS.resolve("POST", f"/olla/{prefix}{path}")
        assert target.right in (Right.GENERATE, Right.EMBED)
        assert target.needs_model


@pytest.mark.parametrize("prefix", ["openai", "proxy"])
def test_openai_paths_work_with_and_without_v1(prefix: str) -> None:
    """Clients that add /v1 themselves and those that do not reach the same operation."""
    short = PATHS.resolve("POST", f"/olla/{prefix}/chat/completions")
    full = PATHS.resolve("POST", f"/olla/{prefix}/v1/chat/completions")
    assert short == full
    assert full.profiles is None


def test_lm_studio_keeps_its_own_api() -> None:
    """Inference in LM Studio's own API infers, its model management manages."""
    assert PATHS.resolve("POST", "/olla/lmstudio/api/v1/chat").right is Right.GENERATE
    assert PATHS.resolve("POST", "/olla/lmstudio/api/v0/completions").operation.occupies_slot
    load = PATHS.resolve("POST", "/olla/lmstudio/api/v1/models/load")
    assert (load.operation, load.right) == (Operation.OTHER, Right.MANAGE)


def test_other_methods_below_a_servers_models_manage() -> None:
    """`POST /v1/models/…` is a server's own way to load and unload, not a mistake."""
    target = PATHS.resolve("POST", "/olla/llamacpp/v1/models/load")
    assert (target.operation, target.right) == (Operation.OTHER, Right.MANAGE)


# --- bodies, parameters, queries ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/chat", BodyUse.JSON),
        ("DELETE", "/api/delete", BodyUse.JSON),
        ("GET", "/api/tags", BodyUse.NONE),
        ("POST", "/api/blobs/sha256:ab", BodyUse.STREAMED),
        ("POST", "/v1/audio/transcriptions", BodyUse.MULTIPART),
        ("POST", "/api/unheard-of", BodyUse.JSON),
    ],
)
def test_a_path_says_what_is_done_with_the_body(method: str, path: str, body: BodyUse) -> None:
    """Uploads are not held in memory, inference bodies are looked into."""
    assert PATHS.resolve(method, path).body is body


@pytest.mark.parametrize(
    ("path", "needs"),
    [
        ("/api/chat", True),
        ("/api/show", True),
        ("/api/copy", True),
        ("/api/push", True),
        ("/api/pull", False),
        ("/api/create", False),
    ],
)
def test_only_what_works_on_a_model_needs_one_that_is_there(path: str, needs: bool) -> None:
    """A pull or a create may name a model that no endpoint has yet."""
    assert PATHS.resolve("POST", path).needs_model is needs


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/models/llama3.2:latest", "llama3.2:latest"),
        ("/v1/models/hf.co/user/repo:Q4", "hf.co/user/repo:Q4"),
        ("/v1/models/hf.co%2Fuser%2Frepo%3AQ4", "hf.co/user/repo:Q4"),
        ("/v1/models/m%C3%B6del", "mödel"),
        ("/api/blobs/sha256%3Aab", "sha256:ab"),
    ],
)
def test_a_parameter_is_decoded(path: str, name: str) -> None:
    """Model ids may hold slashes, plain or encoded; digests come out as they are meant."""
    method = "HEAD" if "blobs" in path else "GET"
    assert PATHS.resolve(method, path).name == name


def test_a_digest_is_one_segment() -> None:
    """Blobs have no folders."""
    assert PATHS.resolve("POST", "/api/blobs/a/b").operation is Operation.OTHER
    assert kind_of("POST", "/api/blobs/a%2Fb") is Kind.BAD_REQUEST


@pytest.mark.parametrize("query", ["?ts=1763671234", "?", "?a=%2e%2e/%5C%00&b=\\..//x", "?q=a?b;c"])
def test_a_query_survives_untouched(query: str) -> None:
    """What stands after the question mark is the endpoint's business."""
    for path in ("/api/chat", "/api/unheard-of"):
        assert PATHS.resolve("POST", path + query).upstream_target == path + query


# --- what is not there --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/api/chat", ("POST",)),
        ("POST", "/api/delete", ("DELETE",)),
        ("GET", "/api/delete", ("DELETE",)),
        ("POST", "/api/tags", ("GET", "HEAD")),
        ("DELETE", "/v1/models/llama3", ("GET", "HEAD")),
        ("get", "/api/tags", ("GET", "HEAD")),
        ("GET", "/api/blobs/sha256:ab", ("HEAD", "POST")),
    ],
)
def test_a_wrong_method_names_the_right_ones(
    method: str, path: str, allowed: tuple[str, ...]
) -> None:
    """A 405 tells which methods there are, for the Allow header and for people."""
    with pytest.raises(WrongMethod) as caught:
        PATHS.resolve(method, path)
    assert caught.value.allowed == allowed
    assert caught.value.failure.kind is Kind.METHOD_NOT_ALLOWED
    assert all(each in caught.value.failure.message for each in allowed)


@pytest.mark.parametrize("method", ["CONNECT", "TRACE"])
def test_methods_for_proxies_are_never_passed_on(method: str) -> None:
    """Nobody tunnels through the router or has headers echoed."""
    assert kind_of(method, "/olla/vllm/whatever") is Kind.METHOD_NOT_ALLOWED


@pytest.mark.parametrize(
    "path",
    [
        "/olla",
        "/olla/",
        "/olla/nothing/v1/models",
        "/internal/unheard-of",
        "/favicon.ico",
        "/API/chat",
        "/api",
        "/v1",
        "/olla/anthropic/v1/chat/completions",
        "/x/api/chat",
    ],
)
def test_an_unknown_path_elsewhere_is_not_found(path: str) -> None:
    """Where no kind of server is named nothing is passed on, and the message helps."""
    with pytest.raises(Failed) as caught:
        PATHS.resolve("GET", path)
    assert caught.value.failure.kind is Kind.NOT_FOUND
    assert "/olla/ollama/" in caught.value.failure.message


@pytest.mark.parametrize(
    ("path", "upstream", "dialect"),
    [
        ("/olla/ollama/api/me", "/api/me", "ollama"),
        ("/api/experimental/x", "/api/experimental/x", "ollama"),
        ("/v1/images/generations", "/v1/images/generations", "openai"),
        ("/olla/vllm/metrics", "/metrics", "openai"),
        ("/olla/litellm/ui/", "/ui/", "openai"),
    ],
)
def test_an_unknown_path_of_a_server_is_passed_on(path: str, upstream: str, dialect: str) -> None:
    """It needs the right to manage, unless it is known that a GET of it only reads."""
    reads = Right.LIST if path.endswith("/metrics") else Right.MANAGE
    for method, right in [
        ("GET", reads),
        ("HEAD", reads),
        ("POST", Right.MANAGE),
        ("PATCH", Right.MANAGE),
        ("OPTIONS", Right.LIST),
    ]:
        target = PATHS.resolve(method, path)
        assert target.operation is Operation.OTHER
        assert target.right is right
        assert target.upstream_target == upstream
        assert target.dialect.name == dialect
        assert not target.needs_model


@pytest.mark.parametrize("path", ["/api/chat", "/v1/models/x", "/olla/openai/v1/embeddings"])
def test_options_that_is_no_preflight_is_the_servers_to_answer(path: str) -> None:
    """OPTIONS is passed on, and asks for no right to change anything."""
    target = PATHS.resolve("OPTIONS", path)
    assert target.operation is Operation.OTHER
    assert target.right is Right.LIST


@pytest.mark.parametrize("path", ["/api/chat", "/api/delete", "/olla/vllm/v1/models/x", "/api/x"])
def test_a_browsers_question_is_the_servers_to_answer(path: str) -> None:
    """OPTIONS asks what may be asked: it needs no more than a list does, on any path."""
    target = PATHS.resolve("OPTIONS", path)
    assert (target.operation, target.right) == (Operation.OTHER, Right.LIST)
    assert not target.needs_model


def test_a_get_that_changes_the_server_manages() -> None:
    """SGLang drops its cache and frees its memory when asked with GET."""
    assert PATHS.resolve("GET", "/olla/sglang/flush_cache").right is Right.MANAGE
    assert PATHS.resolve("GET", "/olla/sglang//release_memory_occupation/").right is Right.MANAGE
    assert PATHS.resolve("GET", "/olla/sglang/get_model_info").right is Right.LIST


def test_the_root_can_be_switched_off(paths_without_root: Paths) -> None:
    """Then only paths below /olla/ are there, with the errors of the format that was spoken."""
    for path in ("/", "/api/chat", "/v1/models"):
        assert kind_of("POST", path, paths_without_root) is Kind.NOT_FOUND
    assert paths_without_root.resolve("GET", "/olla/ollama/").operation is Operation.HEARTBEAT
    assert paths_without_root.error_dialect("/api/chat").name == "ollama"
    assert paths_without_root.error_dialect("/").name == "olla"


def test_the_memory_of_targets_is_bounded() -> None:
    """Endless different targets do not grow the router."""
    for number in range(5000):
        PATHS.resolve("GET", f"/v1/models/m{number}")
        PATHS.resolve("GET", f"/api/tags?{number}")
        PATHS.resolve("GET", f"/api/x{number}")
        PATHS.resolve("GET", "/api/tags" + "/" * (number % 1500))
    assert len(PATHS._cache) <= 1024


# --- the dialect of errors ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "dialect"),
    [
        ("/api/anything", "ollama"),
        ("/v1/chat/completions", "openai"),
        ("/v1/messages", "anthropic"),
        ("/v1/messages/count_tokens?beta=true", "anthropic"),
        ("/olla/ollama/api/chat", "ollama"),
        ("/olla/ollama/v1/models", "openai"),
        ("/olla/ollama/v1/messages", "anthropic"),
        ("/olla/vllm/whatever", "openai"),
        ("/olla/lemonade/api/v1/models", "openai"),
        ("/olla/openai/anything", "openai"),
        ("/olla/anthropic/anything", "anthropic"),
        ("/olla/anthropic", "anthropic"),
        ("/", "ollama"),
        ("/olla/nothing", "olla"),
        ("/internal/status", "olla"),
        ("/favicon.ico?/api/", "olla"),
        ("", "olla"),
        ("*", "olla"),
    ],
)
def test_an_error_speaks_the_dialect_of_its_path(target: str, dialect: str) -> None:
    """Whoever asked understands the refusal, even where nothing is."""
    assert PATHS.error_dialect(target).name == dialect
