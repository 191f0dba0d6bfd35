"""No spelling of a path gets past the right that its operation needs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olla.dialects.dialect import Operation, Right
from olla.dialects.paths import Paths, ScopeSpec
from olla.failures import Failed, Kind
from olla.fleet.profiles import PROFILES

PATHS = Paths(
    [ScopeSpec(row.name, row.prefixes, row.dialects) for row in PROFILES.values()],
    root_enabled=True,
)
KNOWN = [
    ("GET", "/api/version"),
    ("GET", "/api/tags"),
    ("POST", "/api/show"),
    ("POST", "/api/chat"),
    ("POST", "/api/pull"),
    ("POST", "/api/create"),
    ("DELETE", "/api/delete"),
    ("HEAD", "/api/blobs/sha256:" + "a" * 64),
    ("POST", "/api/blobs/sha256:" + "a" * 64),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/llama3"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/messages"),
]


def kind_of(method: str, target: str) -> Kind:
    with pytest.raises(Failed) as caught:
        PATHS.resolve(method, target)
    return caught.value.failure.kind


@pytest.mark.parametrize(
    "target",
    [
        "api/chat",
        "http://other/api/chat",
        "*",
        "",
        "/api/../internal",
        "/api/..",
        "/api/./chat",
        "/olla/ollama/..",
        "/olla/ollama/%2e%2e/x",
        "/olla/ollama/%2E./x",
        "/olla/ollama/.%2e/x",
        "/olla/ollama/..;/x",
        "/olla/ollama/..%3bx/y",
        "/olla/ollama/%2e%2e%2fapi",
        "/v1/models/..%2F..%2Fapi%2Fdelete",
        "/v1/models/%2e%2e%2fapi",
        "/api%2fdelete",
        "/olla%2follama/api/chat",
        "/api\\delete",
        "/api/%5cdelete",
        "/api/%00",
        "/api/chat%0d%0aX:y",
        "/api/chat\r\nX: y",
        "/api/chat?x\ny",
        "/api/ch\x00at",
        "/api/ch at",
        "/api/chät",
        "/api/%",
        "/api/%zz",
        "/api/%2",
        "/api/%252e%252e/x",
        "/api/%2564elete",
        "/api/%c0%ae%c0%ae/x",
        "/api/%ff",
        "/api/chat#x",
    ],
)
def test_a_target_that_can_be_read_in_two_ways_is_refused(target: str) -> None:
    """Nothing steps upward, hides a slash or a line end, or is no plain path."""
    for method in ("GET", "POST", "DELETE"):
        assert kind_of(method, target) is Kind.BAD_REQUEST


@pytest.mark.parametrize(
    "target",
    [
        "/api/%64elete",
        "/%61pi/delete",
        "//api/delete",
        "/api//delete",
        "/api/delete/",
        "/api/delete//",
        "/api/%64%65lete/",
        "/%6flla/ollama/api/delete",
        "/api/d%65lete",
        "//olla//ollama//api//delete",
    ],
)
def test_a_disguised_path_is_what_it_is(target: str) -> None:
    """The right that is asked for is that of what the endpoint will do, and it gets that form."""
    found = PATHS.resolve("DELETE", target)
    assert found.operation is Operation.DELETE
    assert found.right is Right.MANAGE
    assert found.upstream_target == "/api/delete"
    assert kind_of("GET", target) is Kind.METHOD_NOT_ALLOWED


RANK = {Right.LIST: 0, Right.EMBED: 1, Right.GENERATE: 1, Right.MANAGE: 2}


@st.composite
def disguised(draw: st.DrawFn) -> tuple[str, str, str]:
    """A known method and path, and a spelling of that path."""
    method, path = draw(st.sampled_from(KNOWN))
    prefix = draw(st.sampled_from(["", "/olla/ollama"]))
    path = prefix + path
    spelled = ""
    for character in path:
        how = draw(st.integers(0, 9))
        if character == "/":
            spelled += "/" * (2 if how == 0 else 1)
            spelled += draw(st.sampled_from(["./", "%2e/", "x/../"])) if how == 1 else ""
        elif how == 2:
            spelled += f"%{ord(character):02x}"
        elif how == 3:
            spelled += f"%{ord(character):02X}"
        elif how == 4:
            spelled += f"%25{ord(character):02x}"
        else:
            spelled += character
    spelled += draw(st.sampled_from(["", "", "/", "//", ";x", ";", "%3b", "?x", "%20", "#"]))
    return method, path, spelled


@given(disguised())
def test_no_spelling_lowers_the_right(example: tuple[str, str, str]) -> None:
    """However a path is spelled, it is refused or needs at least the right of its clean form."""
    method, path, spelled = example
    clean = PATHS.resolve(method, path)
    try:
        found = PATHS.resolve(method, spelled)
    except Failed:
        return
    assert RANK[found.right] >= RANK[clean.right]


@given(
    st.sampled_from(["GET", "POST", "DELETE", "HEAD", "OPTIONS", "", "\x00"]),
    st.one_of(
        st.text(),
        st.text(alphabet="/%.;?#\\olaipv1 2ef").map("/".__add__),
        st.sampled_from(["/api/", "/v1/models/", "/olla/vllm/", "/olla/openai/"]).flatmap(
            lambda start: st.text(alphabet=st.characters(codec="latin-1")).map(start.__add__)
        ),
    ),
)
def test_resolve_raises_nothing_but_failed(method: str, target: str) -> None:
    """No target surprises it, and what it sends on is a path of plain ASCII."""
    assert PATHS.error_dialect(target).name in ("ollama", "openai", "anthropic", "olla")
    try:
        found = PATHS.resolve(method, target)
    except Failed:
        return
    assert found.upstream_target.startswith("/")
    assert found.upstream_target.isascii()
    assert found.upstream_target.isprintable()
    assert " " not in found.upstream_target
    path = found.upstream_target.partition("?")[0]
    assert "//" not in path
    assert not {".", ".."} & set(path.split("/"))


@pytest.mark.parametrize(("method", "path"), KNOWN)
def test_what_is_sent_on_asks_for_the_same(method: str, path: str) -> None:
    """A target's own upstream form resolves to itself: reading twice changes nothing."""
    once = PATHS.resolve(method, path)
    assert PATHS.resolve(method, once.upstream_target) == once
