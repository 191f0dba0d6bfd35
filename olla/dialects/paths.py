"""Which request target asks for what: target -> dialect, operation, endpoints that may serve it.

A target is read the way the server behind will read it: escapes of plain characters are decoded,
doubled slashes are one, a slash at the end does not count, and what is sent on is the form that
was read. Whatever could be read in two ways is refused. So no spelling of a path gets past the
right that its operation needs.
"""

import re
from collections.abc import Iterable, Mapping

import msgspec

from olla.dialects.anthropic import Anthropic
from olla.dialects.dialect import Category, Dialect, Operation
from olla.dialects.ollama import Ollama
from olla.dialects.openai import OpenAI
from olla.dialects.own import Own
from olla.dialects.routes import (
    BodyUse,
    Route,
    category_of,
    native_routes,
    server_routes,
    v1_routes,
)
from olla.failures import Failed, Failure, Kind

__all__ = ["DIALECTS", "BodyUse", "Paths", "ScopeSpec", "Target"]

DIALECTS: Mapping[str, Dialect] = {
    each.name: each for each in (Ollama(), OpenAI(), Anthropic(), Own())
}

_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = re.compile(r"[A-Za-z0-9\-._~:@!$&'()*+,=]")
_BAD = re.compile(r"[^\x21-\x7e]|\\")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})|%(?:0[0-9A-Fa-f]|1[0-9A-Fa-f]|5[Cc]|7[Ff])")
_CACHE_MAX = 1024


class ScopeSpec(msgspec.Struct, frozen=True):
    """A kind of server, as far as paths go: its name, its prefixes under `/olla/`, its dialects."""

    profile: str
    prefixes: tuple[str, ...]
    dialects: frozenset[str]


class Target(msgspec.Struct, frozen=True):
    """What a request target asks for.

    `upstream_target` is path and query to send on; `profiles` the kinds of server that may serve
    it (None: any that speaks the dialect); `needs_model` that only endpoints with the model can;
    `name` the path's parameter, decoded (a model's id, a blob's digest).
    """

    dialect: Dialect
    operation: Operation
    category: Category
    upstream_target: str
    profiles: frozenset[str] | None
    prefix: str
    needs_model: bool
    body: BodyUse
    name: str | None = None


class _Scope(msgspec.Struct, frozen=True):
    prefix: str
    profiles: frozenset[str] | None
    default: str
    exact: dict[str, Route]
    open_ended: tuple[tuple[str, Route], ...]
    passes_unknown: bool
    relative: str = ""
    """Put before paths that are not known without it (`/olla/openai/models`)."""


class Paths:
    """Resolves request targets. `root_enabled`: `/api/*` and `/v1/*` are as `/olla/ollama/`."""

    def __init__(self, scopes: Iterable[ScopeSpec], *, root_enabled: bool) -> None:
        self._scopes: dict[str, _Scope] = {}
        native = native_routes() | v1_routes("/v1", anthropic=True)
        ollama = frozenset({"ollama"})
        for spec in scopes:
            for prefix in spec.prefixes:
                if spec.profile == "ollama":
                    scope = _scope(f"/olla/{prefix}", ollama, "ollama", native)
                else:
                    routes = server_routes()
                    for base in ("/v1", "/engines/v1", "/engines/llama.cpp/v1", "/api/v1"):
                        routes |= v1_routes(base, anthropic="anthropic" in spec.dialects)
                    profiles = frozenset({spec.profile})
                    scope = _scope(f"/olla/{prefix}", profiles, "openai", routes)
                self._scopes[prefix] = scope
        openai = v1_routes("/v1", anthropic=False)
        for prefix in ("openai", "proxy"):
            self._scopes[prefix] = _scope(f"/olla/{prefix}", None, "openai", openai, relative="/v1")
        only = v1_routes("/v1", anthropic=True)
        anthropic = {
            path: msgspec.structs.replace(route, dialect="anthropic")
            for path, route in only.items()
            if route.operation
            in (Operation.MESSAGES, Operation.COUNT_TOKENS, Operation.LIST, Operation.MODEL)
        }
        self._scopes["anthropic"] = _scope(
            "/olla/anthropic", None, "anthropic", anthropic, passes_unknown=False
        )
        self._root = _scope("", ollama, "ollama", native) if root_enabled else None
        self._cache: dict[tuple[str, str], Target] = {}

    def resolve(self, method: str, raw_target: str) -> Target:
        """What a request asks for. `raw_target` is as it stands in the request line.

        Raises:
            Failed: nothing is there, not with that method, or the target is no plain path.
        """
        key = (method, raw_target)
        target = self._cache.get(key)
        if target is None:
            target = self._resolve(method, raw_target)
            if target.name is None and target.operation is not Operation.OTHER:
                if len(self._cache) >= _CACHE_MAX:
                    self._cache.clear()
                self._cache[key] = target
        return target

    def error_dialect(self, raw_target: str) -> Dialect:
        """The dialect in which whoever sent such a target will understand an error."""
        path = raw_target.partition("?")[0]
        if path.startswith("/olla/anthropic") or "/v1/messages" in path:
            return DIALECTS["anthropic"]
        found = self._split(path)
        if found is None:
            return DIALECTS["olla"]
        scope, rest = found
        if rest.startswith("/v1"):
            return DIALECTS["openai"]
        return DIALECTS[scope.default]

    def _resolve(self, method: str, raw_target: str) -> Target:
        path, mark, query = raw_target.partition("?")
        if not path.startswith("/"):
            raise _bad("the request target must be a path that begins with a slash")
        if _BAD.search(raw_target) or _BAD_ESCAPE.search(path) or "#" in raw_target:
            raise _bad("the request target has characters that no path may have")
        found = self._split(_plain(path))
        if found is None:
            raise _not_found(path)
        scope, rest = found
        route, name = _lookup(scope, rest)
        if route is None and scope.relative:
            route, name = _lookup(scope, scope.relative + rest)
            if route is not None:
                rest = scope.relative + rest
        if name is None and re.search("%2[Ff]", rest):
            raise _bad("an encoded slash may only stand in a model's id")
        upstream = f"{rest}{mark}{query}"
        if route is None:
            return self._unknown(scope, method, path, upstream)
        if method not in route.methods:
            allowed = ", ".join(sorted(route.methods))
            raise Failed(Failure(Kind.METHOD_NOT_ALLOWED, f"{rest} takes {allowed}, not {method}"))
        return Target(
            dialect=DIALECTS[route.dialect],
            operation=route.operation,
            category=category_of(route.operation, method),
            upstream_target=upstream,
            profiles=scope.profiles,
            prefix=scope.prefix,
            needs_model=route.needs_model,
            body=route.body,
            name=name,
        )

    def _unknown(self, scope: _Scope, method: str, path: str, upstream: str) -> Target:
        if not scope.passes_unknown:
            raise _not_found(path)
        if scope is self._root and not upstream.startswith(("/api/", "/v1/")):
            raise _not_found(path)
        dialect = "openai" if upstream.startswith("/v1/") else scope.default
        return Target(
            dialect=DIALECTS[dialect],
            operation=Operation.OTHER,
            category=category_of(Operation.OTHER, method),
            upstream_target=upstream,
            profiles=scope.profiles,
            prefix=scope.prefix,
            needs_model=False,
            body=BodyUse.JSON,
        )

    def _split(self, path: str) -> tuple[_Scope, str] | None:
        """The scope of a path, and the rest of it as the server behind knows it."""
        if path.startswith("/olla/"):
            prefix, slash, rest = path[6:].partition("/")
            scope = self._scopes.get(prefix)
            return None if scope is None else (scope, slash + rest or "/")
        if path == "/olla" or self._root is None or path.startswith("/internal"):
            return None
        return self._root, path


def _scope(
    prefix: str,
    profiles: frozenset[str] | None,
    default: str,
    routes: Mapping[str, Route],
    *,
    passes_unknown: bool = True,
    relative: str = "",
) -> _Scope:
    return _Scope(
        prefix=prefix,
        profiles=profiles,
        default=default,
        exact={path: route for path, route in routes.items() if not path.endswith("/*")},
        open_ended=tuple(
            (path[:-1], route) for path, route in routes.items() if path.endswith("/*")
        ),
        passes_unknown=passes_unknown,
        relative=relative,
    )


def _lookup(scope: _Scope, path: str) -> tuple[Route | None, str | None]:
    route = scope.exact.get(path)
    if route is not None:
        return route, None
    for start, each in scope.open_ended:
        if path.startswith(start) and len(path) > len(start):
            return each, _decoded(path[len(start) :])
    return None, None


def _plain(path: str) -> str:
    """The path as a server would read it: plain characters decoded, slashes single.

    Raises:
        Failed: it steps upward.
    """
    if "%" in path:
        path = _ESCAPE.sub(_decode_unreserved, path)
    if "//" in path:
        path = re.sub("/+", "/", path)
    if "/." in path and any(part in (".", "..") for part in path.split("/")):
        raise _bad("the request target must not have . or .. as a part")
    return path.rstrip("/") or "/"


def _decode_unreserved(match: re.Match[str]) -> str:
    character = chr(int(match[1], 16))
    return character if _UNRESERVED.match(character) else match[0]


def _decoded(part: str) -> str:
    raw = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), part)
    try:
        return raw.encode("latin-1").decode()
    except UnicodeDecodeError:
        raise _bad("the request target is not UTF-8") from None


def _bad(message: str) -> Failed:
    return Failed(Failure(Kind.BAD_REQUEST, message))


def _not_found(path: str) -> Failed:
    return Failed(
        Failure(
            Kind.NOT_FOUND,
            f"there is nothing at {path[:200]}; models are served at /olla/ollama/, "
            "/olla/openai/v1/ and /olla/{type}/, the router's own state at /internal/status",
        )
    )
