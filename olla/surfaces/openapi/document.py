"""The OpenAPI document of olla's own surfaces, at `/olla/openapi.json`.

Made of the table in `openapi_table`; the proxied APIs are documented by those who defined them.
"""

import re
from http import HTTPStatus
from typing import Any

from aiohttp import web
from pydantic.json_schema import models_json_schema

from olla.dialects.dialect import Right
from olla.proxy.internal.routes import InternalRequest, InternalRoute
from olla.settings.surfaces import Surfaces
from olla.surfaces.json_requests import by_method
from olla.surfaces.management.wire import Wire
from olla.surfaces.openapi.operations import Row, rows
from olla.surfaces.responses import json_response

__all__ = ["PATH", "OpenApi", "document"]

PATH = "/olla/openapi.json"
_SCHEMAS = "#/components/schemas/"
_HEADERS = {
    "X-RateLimit-Limit": "Requests that are allowed, where a limit holds.",
    "X-RateLimit-Remaining": "Requests that are left of it.",
    "X-RateLimit-Reset": "When all of it is back: Unix time, elsewhere than on the management API "
    "seconds.",
}
_STREAM = {"description": "Pieces of the answer as they come, each a JSON object."}
_KEYED: list[dict[str, list[str]]] = [{"bearer": []}, {"key": []}, {}]
"""Whether the last is enough depends on the configuration (`access.anonymous_operations`)."""


class OpenApi:
    """Answers with the document, which is made when it is first asked for."""

    def __init__(self, surfaces: Surfaces, version: str) -> None:
        self._surfaces = surfaces
        self._version = version
        self._made: dict[str, Any] | None = None

    def paths(self) -> dict[str, InternalRoute]:
        """Where it is."""
        answer = by_method("olla", {"GET": self._answer})
        return {PATH: InternalRoute(answer, right=Right.LIST, operation="openapi")}

    async def _answer(self, request: web.BaseRequest, asked: InternalRequest) -> web.Response:
        if self._made is None:
            self._made = document(self._surfaces, self._version)
        return json_response(self._made)


def document(surfaces: Surfaces, version: str) -> dict[str, Any]:
    """The whole document."""
    table = rows(surfaces)
    paths: dict[str, dict[str, Any]] = {}
    for row in table:
        paths.setdefault(row.path, {})[row.method] = _operation(row)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "olla",
            "version": version,
            "description": "The router's own surfaces. Ollama's, OpenAI's and Anthropic's APIs are "
            "served beside them under /olla/ollama, /olla/openai and /olla/anthropic.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in dict.fromkeys(row.tag for row in table)],
        "paths": paths,
        "components": {
            "schemas": _schemas(table),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _operation(row: Row) -> dict[str, Any]:
    words = re.findall(r"[a-z]+", row.path)
    operation: dict[str, Any] = {
        "operationId": "_".join([row.method, *words]),
        "tags": [row.tag],
        "summary": row.summary,
        "security": _KEYED if row.needs else [],
        "responses": _responses(row),
    }
    if row.needs:
        operation["description"] = f"A key needs the right `{row.needs}`."
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in re.findall(r"\{(\w+)\}", row.path)
    ]
    parameters += [
        {"name": name, "in": "query", "description": meaning, "schema": {"type": "string"}}
        for name, meaning in row.query.items()
    ]
    if parameters:
        operation["parameters"] = parameters
    if row.body is not None:
        content = {"application/json": {"schema": _reference(row.body)}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _responses(row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for status, shape in row.answers.items():
        content: dict[str, Any] = {}
        if isinstance(shape, str):
            content[shape] = {"schema": _STREAM}
        else:
            content["application/json"] = {"schema": {} if shape is None else _reference(shape)}
        if row.streams:
            content[row.streams] = {"schema": _STREAM}
        found[str(status)] = _response(status, content, row)
    for status in sorted({405, *row.errors}):
        if status not in row.answers:
            content = {"application/json": {"schema": _reference(row.error)}}
            found[str(status)] = _response(status, content, row)
    return found


def _response(status: int, content: dict[str, Any], row: Row) -> dict[str, Any]:
    response: dict[str, Any] = {"description": HTTPStatus(status).phrase, "content": content}
    if row.needs:
        response["headers"] = {
            name: {"description": meaning, "schema": {"type": "integer"}}
            for name, meaning in _HEADERS.items()
        }
    return response


def _reference(shape: type[Wire]) -> dict[str, str]:
    return {"$ref": _SCHEMAS + shape.__name__}


def _schemas(table: list[Row]) -> dict[str, Any]:
    shapes: dict[str, type[Wire]] = {}
    for row in table:
        for shape in (row.body, row.error, *row.answers.values()):
            if isinstance(shape, type):
                shapes[shape.__name__] = shape
    _, made = models_json_schema(
        [(shape, "validation") for shape in shapes.values()], ref_template=_SCHEMAS + "{model}"
    )
    definitions: dict[str, Any] = made["$defs"]
    return definitions
