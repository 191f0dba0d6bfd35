"""Provide what surfaces with JSON requests share: bodies, methods, limits of tiers.

The surfaces define requests and responses.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from olla.access.limit import Limit, LimitKind
from olla.dialects.dialect import Dialect
from olla.dialects.json_scan import OWN_LIMITS, TooComplex, scan_abridged
from olla.dialects.registry import DIALECTS
from olla.dialects.top_level import NotAnObject, TopLevel
from olla.failures import Failed, Failure, Kind
from olla.proxy.http.error_response import error_response
from olla.proxy.internal.routes import InternalRequest

__all__ = [
    "KEYS_MAX",
    "MESSAGES_MAX",
    "Answer",
    "by_method",
    "parsed",
    "parsed_with_fields",
    "tier_limits",
]

T = TypeVar("T", bound=BaseModel)
Answer = Callable[[web.BaseRequest, InternalRequest], Awaitable[web.StreamResponse]]
KEYS_MAX = 65_536
"""Bytes of a request about keys."""
MESSAGES_MAX = 16 * 1024 * 1024
"""Bytes of a request with texts and images for a model."""
_ABOUT_MODEL = ("model",)
_SHOWN_MAX = 300


def by_method(dialect: str, answers: Mapping[str, Answer]) -> Answer:
    """Return a handler that dispatches by method, GET also for HEAD; other methods get 405."""
    speaks: Dialect = DIALECTS[dialect]
    allowed = ", ".join(sorted({*answers, *(["HEAD"] if "GET" in answers else [])}))

    async def answer(request: web.BaseRequest, asked: InternalRequest) -> web.StreamResponse:
        method = "GET" if request.method == "HEAD" else request.method
        found = answers.get(method)
        if found is not None:
            return await found(request, asked)
        message = f"{request.method[:40]} is not possible on {request.path[:200]}; use {allowed}"
        asked.record.failure = Failure(Kind.METHOD_NOT_ALLOWED, message)
        return error_response(asked.record.failure, speaks, [("Allow", allowed)])

    return answer


async def parsed(asked: InternalRequest, shape: type[T], most: int) -> T:
    """Read the request's body, of at most `most` bytes, as a model of type `shape`.

    Raises:
        Failed: the body does not fit (the message names the field), or cannot be read.
    """
    wanted, _ = await parsed_with_fields(asked, shape, most)
    return wanted


async def parsed_with_fields(
    asked: InternalRequest, shape: type[T], most: int
) -> tuple[T, TopLevel]:
    """Read the body as `parsed` does, and return its values also as the client wrote them. In the
    model a text of 8 KB or more is `x`, because it is only passed on.

    Raises:
        Failed: see `parsed`.
    """
    body = await asked.body(most)
    try:
        scanned, abridged = await asked.run(scan_abridged(body, OWN_LIMITS))
        wanted = shape.model_validate_json(abridged)
    except TooComplex as error:
        raise Failed(
            Failure(Kind.BAD_REQUEST, f"the body has {error}; send less at once")
        ) from None
    except NotAnObject as error:
        message = f"the body is not a JSON object: {str(error)[:_SHOWN_MAX]}"
        raise Failed(Failure(Kind.BODY_NOT_JSON, message)) from None
    except ValidationError as error:
        raise Failed(_refusal(error)) from None
    return wanted, scanned.fields()


def tier_limits(surface: str, amounts: Mapping[str, int]) -> dict[str, tuple[Limit, ...]]:
    """Return a surface's own limits of requests per minute, by tier."""
    return {
        tier: (Limit(f"surfaces.{surface}.tiers.{tier}", LimitKind.REQUESTS, amount, amount),)
        for tier, amount in amounts.items()
    }


def _refusal(error: ValidationError) -> Failure:
    first, *more = error.errors(include_url=False, include_context=False, include_input=False)
    if first["type"] == "json_invalid":
        return Failure(Kind.BODY_NOT_JSON, f"the body is not JSON: {first['msg'][:_SHOWN_MAX]}")
    place = [part for part in first["loc"] if not _is_of_a_union(part)]
    field = ".".join(map(str, place))[:_SHOWN_MAX]
    what = first["msg"].removeprefix("Value error, ")
    if not field:
        return Failure(Kind.BAD_REQUEST, f"the body must be a JSON object: {what[:_SHOWN_MAX]}")
    kind = Kind.BAD_REQUEST
    if first["loc"] == _ABOUT_MODEL:
        kind = Kind.MODEL_MISSING if first["type"] == "missing" else Kind.MODEL_NOT_STRING
    if first["type"] == "missing":
        message = f"'{field}' is required"
    else:
        message = f"'{field}' is not as it should be: {what[:_SHOWN_MAX]}"
    others = sorted({str(each["loc"][0]) for each in more if each["loc"]} - {str(first["loc"][0])})
    also = f"; also look at {', '.join(others)}"[:_SHOWN_MAX] if others else ""
    return Failure(kind, message + also)


def _is_of_a_union(part: int | str) -> bool:
    """Whether a step of a location names an attempted type instead of a field."""
    return isinstance(part, str) and (part in ("str", "int", "float") or "[" in part)
