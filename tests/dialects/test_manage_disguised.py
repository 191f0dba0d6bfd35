"""Management paths keep their right and their meaning, however they are spelled."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olla.dialects.dialect import Right
from olla.dialects.paths import Paths, ScopeSpec
from olla.dialects.routes import native_routes, right_of
from olla.failures import Failed, Kind

MANAGED = [
    (method, path.replace("*", "sha256:" + "a" * 64), route.operation)
    for path, route in native_routes().items()
    for method in sorted(route.methods)
    if right_of(route.operation) is Right.MANAGE
]
PATHS = Paths(
    [ScopeSpec("ollama", ("ollama",), frozenset({"ollama", "openai", "anthropic"}))],
    root_enabled=True,
)
PREFIXES = st.sampled_from(["", "/olla/ollama"])


def spellings(path: str) -> st.SearchStrategy[str]:
    """The path with letters escaped, slashes doubled, and slashes at its end."""
    parts = [
        st.integers(1, 3).map("/".__mul__)
        if each == "/"
        else st.sampled_from([each, each, f"%{ord(each):02x}", f"%{ord(each):02X}"])
        for each in path
    ]
    return st.tuples(*parts, st.sampled_from(["", "/", "//"])).map("".join)


@pytest.mark.parametrize(("method", "path", "operation"), MANAGED)
@given(data=st.data())
def test_a_disguise_changes_neither_right_nor_operation(
    method: str, path: str, operation: object, data: st.DataObject
) -> None:
    """It is the same call, it needs the right to manage, and it is sent on undisguised."""
    target = data.draw(PREFIXES.flatmap(lambda prefix: spellings(prefix + path)))
    found = PATHS.resolve(method, target)
    assert (found.operation, found.right) == (operation, Right.MANAGE)
    assert found.upstream_target == path


@pytest.mark.parametrize(("method", "path", "operation"), MANAGED)
@given(data=st.data())
def test_a_dot_segment_is_refused(
    method: str, path: str, operation: object, data: st.DataObject
) -> None:
    """Wherever it stands and however it is escaped: servers disagree about what it means."""
    parts = (data.draw(PREFIXES) + path).split("/")
    dots = data.draw(
        st.sampled_from([".", "..", "%2e", "%2E%2e", ".%2e", "..;x", "%2e;", "x/..", "./."])
    )
    parts.insert(data.draw(st.integers(1, len(parts))), dots)
    with pytest.raises(Failed) as caught:
        PATHS.resolve(method, "/".join(parts))
    assert caught.value.failure.kind is Kind.BAD_REQUEST
