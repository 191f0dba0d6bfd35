"""Answer for the whole fleet instead of one endpoint: lists, versions, the heartbeat.

It refreshes the fleet's lists, merges them (`merge`) and answers in the client's dialect. An empty
list would mean that there are no models, so if no endpoint could report, the response is an error.
"""

from collections.abc import Callable
from typing import Any, Protocol

import msgspec
from aiohttp import web

from olla.access.caller import Caller, refuse_model
from olla.access.visibility import Visibility
from olla.clock import Clock
from olla.dialects.dialect import Dialect, Operation
from olla.dialects.internal import InternalDialect
from olla.dialects.paths import Target
from olla.failures import Failure, Kind
from olla.fleet.model_names import canonical
from olla.fleet.profiles import PROFILES
from olla.fleet.snapshot import EndpointView, Snapshot
from olla.proxy.http.error_response import error_response
from olla.proxy.internal.routes import InternalRequest, OperationSurface
from olla.proxy.internal.routes import Surface as OwnSurface
from olla.routing.candidates import exclusion
from olla.routing.decision import refusal
from olla.routing.features import Features
from olla.surfaces.json_requests import by_method
from olla.surfaces.models import merge
from olla.surfaces.models.list_cache import ListCache, Row, Shape
from olla.surfaces.responses import JSON, JSON_UTF8, json_response, list_response

__all__ = ["ListSurface", "Refresh"]

_OPENAI = Shape(lambda one, _: merge.openai_model(one))
_ANTHROPIC = Shape(lambda one, _: merge.anthropic_model(one))
_UNIFIED = Shape(merge.unified_model, memory=True)


def _tag(one: merge.Merged, _: Any) -> bytes:
    return merge.ollama_entry(one)


_TAGS = Shape(_tag)

_RETRY_AFTER = 1.0
"""Seconds. An endpoint's version is probed soon after it has come up."""


API_VERSION = "0.24.0"
"""The version of Ollama whose API is translated, for fleets without an Ollama server."""


class Refresh(Protocol):
    """Refreshes what is known about the endpoints."""

    async def __call__(self, what: str, max_age: float, timeout: float) -> Snapshot:
        """Return the fleet with lists no older than `max_age` seconds, unless the refresh takes
        longer than `timeout` seconds. `what` is `models` or `resident`. Does not raise."""
        ...


class ListSurface:
    """Answers lists, single models, versions and heartbeats.

    `max_age` is the maximum age of lists in seconds, `timeout` the time limit of a refresh: a node
    that loads a model may answer late, and must not delay the lists of the others.
    """

    def __init__(
        self,
        *,
        snapshot: Callable[[], Snapshot],
        refresh: Refresh,
        clock: Clock,
        catalogue: ListCache | None = None,
        max_age: float = 1.0,
        timeout: float = 1.0,
    ) -> None:
        self._snapshot = snapshot
        self._refresh = refresh
        self._clock = clock
        self._catalogue = catalogue or ListCache()
        self._max_age = max_age
        self._timeout = timeout

    def operations(self) -> dict[Operation, OperationSurface]:
        """Return the operations that are answered here on every path."""
        return {
            Operation.LIST: self._list,
            Operation.MODEL: self._model,
            Operation.RUNNING: self._running,
            Operation.VERSION: self._version,
            Operation.HEARTBEAT: self._heartbeat,
        }

    def routes(self) -> dict[str, OwnSurface]:
        """Return the paths that are answered here and belong to no dialect."""
        return {"/olla/models": by_method("olla", {"GET": self._unified})}

    async def _list(self, request: web.BaseRequest, target: Target, caller: Caller) -> web.Response:
        snapshot = await self._fresh("models")
        scope = _ListScope(target.dialect, target.profiles, caller)
        failure = self._refusal(scope, snapshot)
        if failure is not None:
            return error_response(failure, target.dialect)
        if target.dialect.name == "ollama":
            rows = await self._rows(scope, snapshot, _TAGS)
            if scope.profiles is not None:
                rows = [row for row in rows if row[0].from_ollama]
            return _listed(b'{"models":[', rows, content_type=JSON_UTF8)
        if target.dialect.name == "anthropic":
            return _anthropic_list(await self._rows(scope, snapshot, _ANTHROPIC))
        rows = await self._rows(scope, snapshot, _OPENAI)
        return _listed(b'{"object":"list","data":[', rows)

    async def _model(
        self, request: web.BaseRequest, target: Target, caller: Caller
    ) -> web.Response:
        snapshot = await self._fresh("models")
        scope = _ListScope(target.dialect, target.profiles, caller)
        asked_for = target.name or ""
        failure = refuse_model(caller, asked_for, needed=True) or self._refusal(
            scope, snapshot, asked_for
        )
        if failure is not None:
            return error_response(failure, target.dialect)
        (one,) = merge.merged(scope.routable(snapshot), canonical(asked_for))
        if target.dialect.name == "anthropic":
            return json_response(merge.anthropic_model(one))
        return json_response(merge.openai_model(one))

    async def _running(
        self, request: web.BaseRequest, target: Target, caller: Caller
    ) -> web.Response:
        snapshot = await self._fresh("resident")
        scope = _ListScope(target.dialect, target.profiles, caller)
        failure = self._refusal(scope, snapshot)
        if failure is not None:
            return error_response(failure, target.dialect)
        models = [
            msgspec.Raw(entry)
            for resident_model, entry in merge.running(scope.routable(snapshot))
            if scope.visible.sees_model(resident_model.name)
        ]
        return json_response({"models": models}, content_type=JSON_UTF8)

    async def _version(
        self, request: web.BaseRequest, target: Target, caller: Caller
    ) -> web.Response:
        snapshot = self._snapshot()
        scope = _ListScope(target.dialect, target.profiles, caller)
        failure = self._refusal(scope, snapshot)
        if failure is not None:
            return error_response(failure, target.dialect)
        views = scope.routable(snapshot)
        version = merge.lowest_version(
            view.version
            for view in views
            if view.version is not None and view.profile is PROFILES["ollama"]
        )
        if version is None and views and all(v.profile is not PROFILES["ollama"] for v in views):
            version = API_VERSION  # what is translated for clients of Ollama
        if version is None:
            failure = Failure(
                Kind.NO_ENDPOINT,
                "no endpoint has told its version yet; try again shortly",
                retry_after=_RETRY_AFTER,
            )
            return error_response(failure, target.dialect)
        return json_response({"version": version}, content_type=JSON_UTF8)

    async def _heartbeat(
        self, request: web.BaseRequest, target: Target, caller: Caller
    ) -> web.Response:
        failure = self._refusal(
            _ListScope(target.dialect, target.profiles, caller), self._snapshot()
        )
        if failure is not None:
            return error_response(failure, target.dialect)
        return web.Response(
            body=b"Ollama is running", headers={"Content-Type": "text/plain; charset=utf-8"}
        )

    async def _unified(self, request: web.BaseRequest, asked: InternalRequest) -> web.Response:
        await self._fresh("resident")
        snapshot = await self._fresh("models")
        scope = _ListScope(InternalDialect(), frozenset(PROFILES), asked.quota.caller)
        failure = self._refusal(scope, snapshot)
        if failure is not None:
            return error_response(failure, scope.dialect)
        rows = await self._rows(scope, snapshot, _UNIFIED)
        return _listed(b'{"object":"list","data":[', rows)

    async def _rows(self, scope: "_ListScope", snapshot: Snapshot, shape: Shape) -> list[Row]:
        views = scope.routable(snapshot)
        return [*await self._catalogue.rows(views, shape, scope.visible)]

    async def _fresh(self, what: str) -> Snapshot:
        return await self._refresh(what, self._max_age, self._timeout)

    def _refusal(
        self, scope: "_ListScope", snapshot: Snapshot, model: str | None = None
    ) -> Failure | None:
        """Return why the request cannot be routed; None if an endpoint could answer it."""
        features = Features(
            models=() if model is None else (canonical(model),),
            dialect=scope.dialect.name,
            profiles=scope.profiles,
            allowed=scope.caller.endpoints,
            also="" if scope.profiles is not None else "openai",
            suggests=False,
        )
        views = snapshot.endpoints
        if features.models:
            views = snapshot.having(features.models[0])
        # An open breaker or a busy slot does not matter for lists.
        if any(exclusion(features, each) is None for each in views):
            return None
        return refusal(features, snapshot, model or "", self._clock.now()).failure


class _ListScope:
    """The endpoints that a path is about: those of `profiles`, or all that speak `dialect`, as far
    as the caller may see them."""

    def __init__(self, dialect: Dialect, profiles: frozenset[str] | None, caller: Caller) -> None:
        self.dialect = dialect
        self.profiles = profiles
        self.caller = caller
        self.visible = Visibility.of(caller)

    def routable(self, snapshot: Snapshot) -> list[EndpointView]:
        """Return the routable ones."""
        return [
            view
            for view in self.visible.views(snapshot.endpoints)
            if view.routable and self._holds(view)
        ]

    def _holds(self, view: EndpointView) -> bool:
        if view.profile is None:
            return False
        if self.profiles is None:
            dialects = view.profile.dialects
            return self.dialect.name in dialects or (view.spec.translates and "openai" in dialects)
        return view.profile.name in self.profiles


def _listed(
    before: bytes, rows: list[Row], after: bytes = b"]}", content_type: str = JSON
) -> web.Response:
    return list_response(before, [row[1] for row in rows], after, content_type)


def _anthropic_list(rows: list[Row]) -> web.Response:
    ends = {
        "has_more": False,
        "first_id": rows[0][0].model.name if rows else None,
        "last_id": rows[-1][0].model.name if rows else None,
    }
    return _listed(b'{"data":[', rows, b"]," + msgspec.json.encode(ends)[1:])
