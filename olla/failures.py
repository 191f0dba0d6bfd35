"""Every way a request can go wrong: one kind, and what follows from it.

A `Failure` says what broke, who broke it and in which phase. Status code, whether another
endpoint may be tried, whether it counts against the endpoint, the error code on the wire and
the metric label all derive from `FACTS`, so that they can never disagree. How an error *looks*
is the dialects' business.
"""

import enum
import errno

import msgspec

__all__ = [
    "FACTS",
    "LEFT",
    "OURS",
    "Facts",
    "Failed",
    "Failure",
    "Kind",
    "Origin",
    "Phase",
    "kind_of_status",
]


class Origin(enum.Enum):
    """Who broke it."""

    CLIENT = "client"
    OLLA = "olla"
    ENDPOINT = "endpoint"


class Phase(enum.Enum):
    """How far the request had come."""

    REQUEST = "request"
    """While the client's request was read and understood."""
    ROUTE = "route"
    """While an endpoint was chosen."""
    CONNECT = "connect"
    """While the connection to the endpoint was made: the endpoint has seen nothing."""
    HEAD = "head"
    """After the request was sent, before the first byte of the answer went to the client."""
    BODY = "body"
    """After the first byte of the answer went to the client."""


class Kind(enum.Enum):
    """What broke. The value is the code on the wire and the metric label."""

    BAD_REQUEST = "bad_request"
    BODY_NOT_JSON = "invalid_json"
    MODEL_MISSING = "model_required"
    MODEL_NOT_STRING = "model_not_string"
    BODY_TOO_LARGE = "body_too_large"
    HEADERS_TOO_LARGE = "headers_too_large"
    ENCODING_UNSUPPORTED = "encoding_unsupported"
    REQUEST_TIMEOUT = "request_timeout"
    CLIENT_GONE = "client_gone"
    CLIENT_STALLED = "client_stalled"
    """It does not read what it is sent."""

    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    FORBIDDEN = "forbidden"
    ORIGIN_FORBIDDEN = "origin_not_allowed"
    """A web page asks that may not use the router."""
    HOST_FORBIDDEN = "host_not_allowed"
    """The name that was asked for may be a foreign page's, and lead here all the same."""
    KEY_MISSING = "api_key_required"
    KEY_INVALID = "invalid_api_key"
    KEY_REVOKED = "api_key_revoked"
    KEY_EXPIRED = "api_key_expired"
    MODEL_FORBIDDEN = "model_not_allowed"
    LIMITED = "rate_limit_exceeded"
    STORE_AWAY = "store_unavailable"
    """What olla keeps cannot be read or written."""

    MODEL_NOT_FOUND = "model_not_found"
    MODEL_UNAVAILABLE = "model_unavailable"
    NO_ENDPOINT = "no_endpoint"
    QUEUE_FULL = "queue_full"
    QUEUE_TIMEOUT = "queue_timeout"
    LOOP = "loop"
    DRAINING = "draining"
    INTERNAL = "internal_error"
    OVERLOADED = "overloaded"
    """Olla itself has no room: connections, memory, file descriptors."""

    CONNECT_REFUSED = "connect_refused"
    CONNECT_UNREACHABLE = "connect_unreachable"
    CONNECT_DNS = "connect_dns"
    CONNECT_TLS = "connect_tls"
    CONNECT_TIMEOUT = "connect_timeout"

    RESET = "reset"
    BAD_HEAD = "bad_head"
    BAD_ANSWER = "bad_answer"
    """The head was good, and what came with it was not: nothing of it has reached the client."""
    FIRST_BYTE_TIMEOUT = "first_byte_timeout"
    UPSTREAM_STATUS = "upstream_status"
    """A 5xx of its own."""
    UPSTREAM_BUSY = "upstream_busy"
    """503: its queue is full, or it is starting."""
    UPSTREAM_LIMITED = "upstream_rate_limited"
    """429."""
    UPSTREAM_UNAUTHORIZED = "upstream_unauthorized"
    """401 or 403: it refuses what olla shows to it."""
    UPSTREAM_MODEL_GONE = "upstream_model_gone"
    """404 for a model that it had a moment ago."""
    GIVEN_UP = "given_up"
    """Found dead or stuck while it had not begun to answer."""

    BODY_RESET = "body_reset"
    BODY_TRUNCATED = "body_truncated"
    BODY_FRAMING = "body_framing"
    BODY_SILENT = "body_silent"
    STREAM_INCOMPLETE = "stream_incomplete"
    ANSWER_TOO_LARGE = "answer_too_large"
    """Longer than what olla gathers of an answer on its own surfaces."""
    TOTAL_TIMEOUT = "total_timeout"


class Facts(msgspec.Struct, frozen=True):
    """What follows from a kind of failure.

    `status` is the HTTP status the client gets when nothing could mend it; `elsewhere` says that
    another endpoint may be tried; `against_endpoint` that it is evidence against the endpoint.
    """

    origin: Origin
    phase: Phase
    status: int
    elsewhere: bool = False
    against_endpoint: bool = False


_CLIENT, _OLLA, _ENDPOINT = Origin.CLIENT, Origin.OLLA, Origin.ENDPOINT

FACTS: dict[Kind, Facts] = {
    Kind.BAD_REQUEST: Facts(_CLIENT, Phase.REQUEST, 400),
    Kind.BODY_NOT_JSON: Facts(_CLIENT, Phase.REQUEST, 400),
    Kind.MODEL_MISSING: Facts(_CLIENT, Phase.REQUEST, 400),
    Kind.MODEL_NOT_STRING: Facts(_CLIENT, Phase.REQUEST, 400),
    Kind.BODY_TOO_LARGE: Facts(_CLIENT, Phase.REQUEST, 413),
    Kind.HEADERS_TOO_LARGE: Facts(_CLIENT, Phase.REQUEST, 431),
    Kind.ENCODING_UNSUPPORTED: Facts(_CLIENT, Phase.REQUEST, 415),
    Kind.REQUEST_TIMEOUT: Facts(_CLIENT, Phase.REQUEST, 408),
    Kind.CLIENT_GONE: Facts(_CLIENT, Phase.BODY, 499),
    Kind.CLIENT_STALLED: Facts(_CLIENT, Phase.BODY, 499),
    Kind.NOT_FOUND: Facts(_CLIENT, Phase.ROUTE, 404),
    Kind.METHOD_NOT_ALLOWED: Facts(_CLIENT, Phase.ROUTE, 405),
    Kind.FORBIDDEN: Facts(_CLIENT, Phase.ROUTE, 403),
    Kind.ORIGIN_FORBIDDEN: Facts(_CLIENT, Phase.REQUEST, 403),
    Kind.HOST_FORBIDDEN: Facts(_CLIENT, Phase.REQUEST, 403),
    Kind.KEY_MISSING: Facts(_CLIENT, Phase.ROUTE, 401),
    Kind.KEY_INVALID: Facts(_CLIENT, Phase.ROUTE, 401),
    Kind.KEY_REVOKED: Facts(_CLIENT, Phase.ROUTE, 401),
    Kind.KEY_EXPIRED: Facts(_CLIENT, Phase.ROUTE, 401),
    Kind.MODEL_FORBIDDEN: Facts(_CLIENT, Phase.ROUTE, 403),
    Kind.LIMITED: Facts(_CLIENT, Phase.ROUTE, 429),
    Kind.STORE_AWAY: Facts(_OLLA, Phase.ROUTE, 503),
    Kind.MODEL_NOT_FOUND: Facts(_CLIENT, Phase.ROUTE, 404),
    Kind.MODEL_UNAVAILABLE: Facts(_OLLA, Phase.ROUTE, 503),
    Kind.NO_ENDPOINT: Facts(_OLLA, Phase.ROUTE, 503),
    Kind.QUEUE_FULL: Facts(_OLLA, Phase.ROUTE, 503),
    Kind.QUEUE_TIMEOUT: Facts(_OLLA, Phase.ROUTE, 504),
    Kind.LOOP: Facts(_OLLA, Phase.ROUTE, 508),
    Kind.DRAINING: Facts(_OLLA, Phase.ROUTE, 503),
    Kind.INTERNAL: Facts(_OLLA, Phase.ROUTE, 500),
    Kind.OVERLOADED: Facts(_OLLA, Phase.ROUTE, 503),
    Kind.CONNECT_REFUSED: Facts(_ENDPOINT, Phase.CONNECT, 502, True, True),
    Kind.CONNECT_UNREACHABLE: Facts(_ENDPOINT, Phase.CONNECT, 502, True, True),
    Kind.CONNECT_DNS: Facts(_ENDPOINT, Phase.CONNECT, 502, True, True),
    Kind.CONNECT_TLS: Facts(_ENDPOINT, Phase.CONNECT, 502, True, True),
    Kind.CONNECT_TIMEOUT: Facts(_ENDPOINT, Phase.CONNECT, 504, True, True),
    Kind.RESET: Facts(_ENDPOINT, Phase.HEAD, 502, True, True),
    Kind.BAD_HEAD: Facts(_ENDPOINT, Phase.HEAD, 502, True, True),
    Kind.BAD_ANSWER: Facts(_ENDPOINT, Phase.HEAD, 502, True, True),
    Kind.FIRST_BYTE_TIMEOUT: Facts(_ENDPOINT, Phase.HEAD, 504, True, True),
    Kind.UPSTREAM_STATUS: Facts(_ENDPOINT, Phase.HEAD, 502, True, True),
    Kind.UPSTREAM_BUSY: Facts(_ENDPOINT, Phase.HEAD, 503, True, True),
    Kind.UPSTREAM_LIMITED: Facts(_ENDPOINT, Phase.HEAD, 503, True),
    Kind.UPSTREAM_UNAUTHORIZED: Facts(_ENDPOINT, Phase.HEAD, 502, True),
    Kind.UPSTREAM_MODEL_GONE: Facts(_ENDPOINT, Phase.HEAD, 404, True),
    Kind.GIVEN_UP: Facts(_ENDPOINT, Phase.HEAD, 504, True),
    Kind.BODY_RESET: Facts(_ENDPOINT, Phase.BODY, 502, False, True),
    Kind.BODY_TRUNCATED: Facts(_ENDPOINT, Phase.BODY, 502, False, True),
    Kind.BODY_FRAMING: Facts(_ENDPOINT, Phase.BODY, 502, False, True),
    Kind.BODY_SILENT: Facts(_ENDPOINT, Phase.BODY, 504, False, True),
    Kind.STREAM_INCOMPLETE: Facts(_ENDPOINT, Phase.BODY, 502, False, True),
    Kind.ANSWER_TOO_LARGE: Facts(_ENDPOINT, Phase.BODY, 502),
    Kind.TOTAL_TIMEOUT: Facts(_OLLA, Phase.BODY, 504),
}


LEFT = frozenset({Kind.CLIENT_GONE, Kind.CLIENT_STALLED})
"""The client left, or was hung up on: nothing more reaches it, and no endpoint is to blame."""
OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Errors of the operating system that say nothing of an endpoint: this side has run out of
something."""

_BY_STATUS = {
    401: Kind.UPSTREAM_UNAUTHORIZED,
    403: Kind.UPSTREAM_UNAUTHORIZED,
    404: Kind.UPSTREAM_MODEL_GONE,
    429: Kind.UPSTREAM_LIMITED,
    503: Kind.UPSTREAM_BUSY,
}


def kind_of_status(status: int) -> Kind | None:
    """What an endpoint's own status means for a request about a model; None when it is an answer
    like any other, which no other endpoint would better."""
    kind = _BY_STATUS.get(status)
    if kind is None and status >= 500 and status != 501:
        return Kind.UPSTREAM_STATUS
    return kind


class Failure(msgspec.Struct, frozen=True):
    """One thing that went wrong.

    `message` is for the person at the other end and says what to do; `endpoint` is the name of
    the endpoint it concerns; `retry_after` is in seconds; `endpoint_status` the HTTP status the
    endpoint answered, where it did.
    """

    kind: Kind
    message: str
    endpoint: str | None = None
    retry_after: float | None = None
    endpoint_status: int | None = None

    @property
    def facts(self) -> Facts:
        """What follows from its kind."""
        return FACTS[self.kind]

    @property
    def status(self) -> int:
        """The HTTP status for the client."""
        return FACTS[self.kind].status


class Failed(Exception):
    """Carries a `Failure` through code that cannot return one."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure
