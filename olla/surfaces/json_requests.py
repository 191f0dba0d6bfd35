"""What surfaces that take JSON and ask the fleet have in common: bodies, methods, limits of tiers.

What is asked and answered is theirs.
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
"""Bytes of a request that is about keys."""
MESSAGES_MAX = 16 * 1024 * 1024
"""Bytes of a request that has texts for a model, and images."""
_ABOUT_MODEL = ("model",)
_SHOWN_MAX = 300


def by_method(dialect: str, answers: Mapping[str, Answer]) -> Answer:
    """Whoever answers a method, GET also for HEAD; 405 for the rest."""
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
    """The request's body, of `most` bytes at most, as a shape.

    Raises:
        Failed: it is not of that shape (the message names the field), or cannot be read.
    """
    wanted, _ = await parsed_with_fields(asked, shape, most)
    return wanted


async def parsed_with_fields(
    asked: InternalRequest, shape: type[T], most: int
) -> tuple[T, TopLevel]:
    """The same, and the values as the client wrote them, to be passed on. In the shape a text of
    8 KB or more is `x`: nothing is made of it here.

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
    """Limits of requests per minute that a surface brings, by tier."""
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
    """Whether a step of a location names a type that was tried, not a field."""
    return isinstance(part, str) and (part in ("str", "int", "float") or "[" in part)
