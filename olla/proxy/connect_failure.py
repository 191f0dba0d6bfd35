"""Why a connection to an endpoint could not be made."""

import socket
import ssl

from olla.failures import OURS, Failure, Kind
from olla.fleet.endpoint import EndpointSpec
from olla.proxy.room import overloaded

__all__ = ["connect_failure"]


def connect_failure(spec: EndpointSpec, error: OSError, timeout: float) -> Failure:
    """The failure to report; `timeout` is how many seconds were waited at most."""
    if error.errno in OURS:
        return overloaded(
            f"no connection to an endpoint can be made ({error.strerror})", "the open files limit"
        )
    where = f"endpoint '{spec.name}' at {spec.host}:{spec.port}"
    if isinstance(error, TimeoutError):
        return Failure(
            Kind.CONNECT_TIMEOUT,
            f"{where} did not accept a connection within {timeout:g} s (proxy.connection_timeout)",
            spec.name,
        )
    if isinstance(error, socket.gaierror):
        return Failure(
            Kind.CONNECT_DNS, f"{where}: the name cannot be resolved ({error})", spec.name
        )
    if isinstance(error, ssl.SSLError):
        return Failure(Kind.CONNECT_TLS, f"{where}: the TLS handshake failed ({error})", spec.name)
    # With several addresses behind a name, asyncio folds the errors into one text.
    if isinstance(error, ConnectionRefusedError) or "refused" in str(error).lower():
        return Failure(Kind.CONNECT_REFUSED, f"{where} refused the connection", spec.name)
    return Failure(Kind.CONNECT_UNREACHABLE, f"{where} cannot be reached ({error})", spec.name)
