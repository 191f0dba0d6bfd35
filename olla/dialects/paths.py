"""Resolve a request target to a dialect, an operation and the endpoints that may serve it.

A target is read as the server will read it: escapes of plain characters are decoded, repeated
slashes are merged, and a slash at the end of a known path is ignored. The server gets the resulting
form. An ambiguous target is rejected, so that no spelling of a path evades the right that its
operation needs. The tables are in `routes`.
"""

import re
from collections.abc import Iterable, Mapping

import msgspec

from olla.dialects.dialect import Dialect, Operation, Right
from olla.dialects.registry import DIALECTS
from olla.dialects.routes import (
    TRANSLATED_TO,
    BodyUse,
    Route,
    native_routes,
    right_of,
    routes_of,
    unknown_right,
    v1_routes,
)
from olla.failures import Failed, Failure, Kind

__all__ = ["BodyUse", "Paths", "ScopeSpec", "Target", "WrongMethod"]

_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_PLAIN = re.compile(r"[A-Za-z0-9\-._~:@!$&'()*+,=]")
_BAD = re.compile(r"[^\x21-\x7e]|#")
_BAD_IN_PATH = re.compile(
    r"""\\
    | %(?![0-9A-Fa-f]{2})               # no escape
    | %(?:[01][0-9A-Fa-f]|5[Cc]|7[Ff])  # control characters, backslash
    | %25[0-9A-Fa-f]{2}                 # an escape within an escape: a second decoding differs
    """,
    re.VERBOSE,
)
_CACHE_MAX = 1024
_CACHED_LENGTH_MAX = 256
_NEVER_PASSED = frozenset({"CONNECT", "TRACE"})


class ScopeSpec(msgspec.Struct, frozen=True):
    """The paths of a kind of server: its name, its prefixes under `/olla/`, its dialects."""

    profile: str
    prefixes: tuple[str, ...]
    dialects: frozenset[str]


class Target(msgspec.Struct, frozen=True):
    """What a request target asks for.

    `upstream_target` is path and query to send on; `profiles` the kinds of server that may serve
    it (None: any that speaks the dialect); `needs_model` that only endpoints with the model can;
    `name` the path's parameter, decoded (a model's id, a blob's digest). `word` is the operation's
    word in logs, `inference` says that it occupies a slot. `also` is another dialect that it can be
    translated to, empty for none.
    """

    dialect: Dialect
    operation: Operation
    right: Right
    upstream_target: str
    profiles: frozenset[str] | None
    prefix: str
    needs_model: bool
    body: BodyUse
    name: str | None = None
    word: str = ""
    inference: bool = False
    also: str = ""

    def __post_init__(self) -> None:
        # Looked up on an Enum, these cost some tenths of a microsecond for each request.
        msgspec.structs.force_setattr(self, "word", self.operation.value)
        msgspec.structs.force_setattr(self, "inference", self.operation.occupies_slot)
        if self.profiles is None:
            also = TRANSLATED_TO.get((self.dialect.name, self.operation), "")
            msgspec.structs.force_setattr(self, "also", also)


class WrongMethod(Failed):
    """The path exists, but not for this method. `allowed` is for the `Allow` header (RFC 9110)."""

    def __init__(self, path: str, method: str, allowed: Iterable[str]) -> None:
        self.allowed = tuple(sorted(allowed))
        message = f"{path[:200]} takes {', '.join(self.allowed)}, not {method[:20]}"
        super().__init__(Failure(Kind.METHOD_NOT_ALLOWED, message))


class _Scope(msgspec.Struct, frozen=True):
    prefix: str
    profiles: frozenset[str] | None
    default: str
    exact: dict[str, Route]
    open_ended: tuple[tuple[str, Route], ...]
    passes_unknown: bool
    passes_methods: bool
    """Other methods below an open-ended path are left to the server (`POST /models/load`)."""
    relative: str
    """Prefix for paths that are unknown without it (`/olla/openai/models`)."""


class Paths:
    """Resolves request targets. `root_enabled`: `/api/*` and `/v1/*` are as `/olla/ollama/`."""

    def __init__(self, scopes: Iterable[ScopeSpec], *, root_enabled: bool) -> None:
        self._scopes: dict[str, _Scope] = {}
        native = native_routes() | v1_routes("/v1", anthropic=True)
        ollama = frozenset({"ollama"})
        for spec in scopes:
            for prefix in spec.prefixes:
                path = f"/olla/{prefix}"
                if spec.profile == "ollama":
                    self._scopes[prefix] = _scope(path, ollama, "ollama", native)
                else:
                    routes = routes_of(spec.profile, anthropic="anthropic" in spec.dialects)
                    profiles = frozenset({spec.profile})
                    self._scopes[prefix] = _scope(
                        path, profiles, "openai", routes, passes_methods=True
                    )
        openai = v1_routes("/v1", anthropic=False)
        for prefix in ("openai", "proxy"):
            self._scopes[prefix] = _scope(f"/olla/{prefix}", None, "openai", openai, relative="/v1")
        self._scopes["proxy"] = _scope(
            "/olla/proxy", None, "openai", _spoken(native) | openai, relative="/v1"
        )
        self._scopes["anthropic"] = _scope(
            "/olla/anthropic", None, "anthropic", _anthropic_routes(), passes_unknown=False
        )
        self._root = _scope("", None, "ollama", native) if root_enabled else None
        self._cache: dict[tuple[str, str], Target] = {}

    def resolve(self, method: str, raw_target: str) -> Target:
        """What a request asks for. `raw_target` is as it stands in the request line.

        Raises:
            Failed: nothing is there, or the target is no plain path.
            WrongMethod: it is there, with other methods.
        """
        target = self._cache.get((method, raw_target))
        if target is None:
            target = self._resolve(method, raw_target)
            # Only what recurs: the table's own paths, without parameter or query.
            if (
                target.name is None
                and target.operation is not Operation.OTHER
                and len(raw_target) <= _CACHED_LENGTH_MAX
                and "?" not in raw_target
            ):
                if len(self._cache) >= _CACHE_MAX:
                    self._cache.clear()
                self._cache[method, raw_target] = target
        return target

    def error_dialect(self, raw_target: str) -> Dialect:
        """Return the dialect of errors for a target.

        Guessed from the beginning of the path, because the target may be invalid.
        """
        rest = raw_target.partition("?")[0]
        default = "olla"
        if rest.startswith("/olla/"):
            prefix, slash, tail = rest[6:].partition("/")
            scope = self._scopes.get(prefix)
            if scope is None:
                return DIALECTS["olla"]
            rest, default = slash + tail, scope.default
        elif rest == "/" and self._root is not None:
            default = "ollama"
        if default == "anthropic" or "/v1/messages" in rest:
            return DIALECTS["anthropic"]
        if rest.startswith("/v1/"):
            return DIALECTS["openai"]
        if rest.startswith("/api/") and default == "olla":
            return DIALECTS["ollama"]
        return DIALECTS[default]

    def _resolve(self, method: str, raw_target: str) -> Target:
        path, mark, query = raw_target.partition("?")
        if not path.startswith("/"):
            raise _bad("the request target must be a path that begins with a slash")
        if _BAD.search(raw_target) or _BAD_IN_PATH.search(path):
            raise _bad("the request target has characters that it may not have; percent-encode it")
        plain = _plain(path)
        found = self._split(plain)
        if found is None:
            raise _not_found(path)
        scope, rest = found
        route, name = _lookup(scope, rest)
        if route is None and scope.relative:
            route, name = _lookup(scope, scope.relative + rest)
            if route is not None:
                rest = scope.relative + rest
        if (route is None or route.operation is not Operation.MODEL) and "%2f" in rest.lower():
            raise _bad("an encoded slash may only stand in a model's id")
        if method == "OPTIONS":
            route = None  # what it may be asked is for the server to say
        if route is not None and method not in route.methods:
            if name is None or not scope.passes_methods or method in _NEVER_PASSED:
                raise WrongMethod(rest, method, route.methods)
            route = None
        if route is None:
            slash = "/" if path.endswith("/") and rest != "/" else ""
            return self._unknown(scope, method, path, rest, f"{slash}{mark}{query}")
        return Target(
            dialect=DIALECTS[route.dialect],
            operation=route.operation,
            right=right_of(route.operation),
            upstream_target=f"{rest}{mark}{query}",
            profiles=scope.profiles,
            prefix=scope.prefix,
            needs_model=route.needs_model,
            body=route.body,
            name=name,
        )

    def _unknown(self, scope: _Scope, method: str, path: str, rest: str, after: str) -> Target:
        """Return the target of a path that only the server knows. `after` follows it in the
        target."""
        under_root = scope is self._root and not (rest + after).startswith(("/api/", "/v1/"))
        if under_root or not scope.passes_unknown:
            raise _not_found(path)
        if method in _NEVER_PASSED:
            raise WrongMethod(rest, method, ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"))
        dialect = "openai" if rest.startswith("/v1/") else scope.default
        return Target(
            dialect=DIALECTS[dialect],
            operation=Operation.OTHER,
            right=unknown_right(method, rest, scope.profiles, queried="?" in after),
            upstream_target=rest + after,
            profiles=scope.profiles,
            prefix=scope.prefix,
            needs_model=False,
            body=BodyUse.JSON,
        )

    def _split(self, path: str) -> tuple[_Scope, str] | None:
        """Return the scope of a plain path, and the rest as the server knows it."""
        if path.startswith("/olla/"):
            prefix, slash, rest = path[6:].partition("/")
            scope = self._scopes.get(prefix)
            return None if scope is None else (scope, slash + rest or "/")
        return None if self._root is None else (self._root, path)


def _scope(
    prefix: str,
    profiles: frozenset[str] | None,
    default: str,
    routes: Mapping[str, Route],
    *,
    passes_unknown: bool = True,
    passes_methods: bool = False,
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
        passes_methods=passes_methods,
        relative=relative,
    )


def _spoken(native: Mapping[str, Route]) -> dict[str, Route]:
    """Ollama's own paths, and Anthropic's, beside those of OpenAI."""
    return {path: route for path, route in native.items() if path != "/"}


def _anthropic_routes() -> dict[str, Route]:
    """The part of Anthropic's API that is served; its lists have their own format."""
    spoken = (Operation.MESSAGES, Operation.COUNT_TOKENS, Operation.LIST, Operation.MODEL)
    return {
        path: msgspec.structs.replace(route, dialect="anthropic")
        for path, route in v1_routes("/v1", anthropic=True).items()
        if route.operation in spoken
    }


def _lookup(scope: _Scope, path: str) -> tuple[Route | None, str | None]:
    """Return the route of a plain path, and its parameter if it has one."""
    route = scope.exact.get(path)
    if route is not None:
        return route, None
    for start, each in scope.open_ended:
        if path.startswith(start) and len(path) > len(start):
            name = _decoded(path[len(start) :])
            if each.operation is Operation.MODEL or "/" not in name:
                return each, name
    return None, None


def _plain(path: str) -> str:
    """The path as a server would read it: plain characters decoded, slashes single.

    Raises:
        Failed: it steps upward, in some reading, or is not UTF-8.
    """
    whole = path
    if "%" in path:
        whole = _decoded(path)
        path = _ESCAPE.sub(_decode_plain, path)
    # Some servers cut parameters (`..;x`) before they walk the path.
    if "/." in whole and any(part.partition(";")[0] in (".", "..") for part in whole.split("/")):
        raise _bad("the request target must not have . or .. as a part")
    if "//" in path:
        path = re.sub("/+", "/", path)
    return path.rstrip("/") or "/"


def _decode_plain(match: re.Match[str]) -> str:
    character = chr(int(match[1], 16))
    return character if _PLAIN.match(character) else match[0]


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
