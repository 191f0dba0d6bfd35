"""The OpenAPI document, and that what is served keeps to it."""

from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from olla.settings.surfaces import Chat, Management, Surfaces
from olla.surfaces.openapi.document import PATH, document
from tests.routers import ADMIN, WITH_ADMIN, ThreadedFleet, threaded_fleet

MODEL = "llama3.2:latest"
CHECKS = [
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
    content_type_conformance,
    unsupported_method,
]
OPERATIONS = [
    "GET /internal/health",
    "GET /internal/ready",
    "GET /internal/status",
    "GET /olla/models",
    "GET /version",
    "GET /olla/management/models",
    "POST /olla/management/chat",
    "POST /olla/management/generate",
    "GET /olla/management/api-keys",
    "POST /olla/management/api-keys",
    "DELETE /olla/management/api-keys/{id}",
]
WITH_INPUT = [each for each in OPERATIONS if each.startswith("POST")]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThreadedFleet]:
    """A router with a store of its own, without limits."""
    store = f"store: {{url: 'sqlite:///{tmp_path_factory.mktemp('store')}/keys.db'}}\n"
    with threaded_fleet(
        {"only": (MODEL,)}, f"{WITH_ADMIN}  tiers: {{standard: {{}}}}\n{store}"
    ) as running:
        yield running


@pytest.fixture(scope="module")
def operations(fleet: ThreadedFleet) -> dict[str, Any]:
    """What the served document describes, by method and path."""
    schema = schemathesis.openapi.from_url(f"{fleet.url}{PATH}")
    found = [each.ok() for each in schema.get_all_operations()]
    return {each.label: each for each in found}


def check(operation: Any, mode: GenerationMode, examples: int) -> None:
    """Ask what the document allows (or, negatively, does not), and check what comes back."""

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def asked(case: Any) -> None:
        if mode is GenerationMode.POSITIVE and isinstance(case.body, dict) and "model" in case.body:
            case.body["model"] = MODEL
            case.body["max_tokens"] = 3
        case.call_and_validate(checks=CHECKS, timeout=10, headers=ADMIN)

    asked()


@pytest.mark.parametrize("label", OPERATIONS)
def test_answers_are_as_they_are_described(operations: dict[str, Any], label: str) -> None:
    """Statuses, types and shapes for requests that keep to the document; no 5xx; 405 for others."""
    check(operations[label], GenerationMode.POSITIVE, 25)


@pytest.mark.parametrize("label", WITH_INPUT)
def test_refusals_are_as_they_are_described(operations: dict[str, Any], label: str) -> None:
    """The same for requests that do not keep to it."""
    check(operations[label], GenerationMode.NEGATIVE, 40)


def test_a_key_is_revoked_as_it_is_described(
    fleet: ThreadedFleet, operations: dict[str, Any]
) -> None:
    """One that is there, which chance does not find."""
    base = f"{fleet.url}/olla/management/api-keys"
    id = requests.post(base, json={"name": "mine"}, headers=ADMIN, timeout=10).json()["id"]
    case = operations["DELETE /olla/management/api-keys/{id}"].Case(path_parameters={"id": str(id)})
    assert case.call_and_validate(checks=CHECKS, timeout=10, headers=ADMIN).status_code == 200


def test_everything_that_is_described_is_in_the_table_of_this_test(
    operations: dict[str, Any],
) -> None:
    """All but the chat service's, which has tests of its own."""
    service = {each.label for each in operations.values() if each.tags == ["chat service"]}
    assert set(operations) - service == set(OPERATIONS)


def test_the_document_is_served(fleet: ThreadedFleet) -> None:
    """To callers that may list."""
    answer = requests.get(f"{fleet.url}{PATH}", timeout=10)
    assert answer.status_code == 200
    assert answer.json()["openapi"].startswith("3.1")


def test_only_what_is_switched_on_is_described_where_it_is() -> None:
    """Prefixes as configured."""
    chosen = Surfaces(management=Management(prefix="/api"), chat=Chat(prefix="/talk"))
    paths = document(chosen, "1")["paths"]
    assert {"/api/chat", "/api/generate", "/talk/chat", "/talk/api/keys/{id}"} <= set(paths)
    off = Surfaces(management=Management(enabled=False), chat=Chat(enabled=False))
    assert not [path for path in document(off, "1")["paths"] if "chat" in path]


def test_the_document_holds_together() -> None:
    """Every shape that is referred to is there, and ids of operations are different."""
    made = document(Surfaces(), "1")
    referred: set[str] = set()
    ids: list[str] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                referred.add(value["$ref"].rpartition("/")[2])
            if "operationId" in value:
                ids.append(value["operationId"])
            value = list(value.values())
        for each in value if isinstance(value, list) else ():
            walk(each)

    walk(made)
    assert referred <= set(made["components"]["schemas"])
    assert len(ids) == len(set(ids))


def test_documented_errors_are_described() -> None:
    """Of the management API: 400, 401, 404, 429 and 500, and when limits are told."""
    chat = document(Surfaces(), "1")["paths"]["/olla/management/chat"]["post"]
    assert {"200", "400", "401", "404", "429", "500"} <= set(chat["responses"])
    assert set(chat["responses"]["429"]["headers"]) == {
        "X-RateLimit-Limit",
        "X-RateLimit-Remaining",
        "X-RateLimit-Reset",
    }
