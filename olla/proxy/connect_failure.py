"""Why a connection to an endpoint could not be made.

Told without the endpoint's address: the message goes to clients, which see names only.
"""

import os
import socket
import ssl

from olla.failures import OURS, Failure, Kind
from olla.fleet.endpoint import EndpointSpec
from olla.proxy.room import overloaded

__all__ = ["connect_failure"]

_OTHER_NAME = (62, 64)
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH, whose texts have the
address in them."""


def connect_failure(spec: EndpointSpec, error: OSError, timeout: float) -> Failure:
    """The failure to report; `timeout` is how many seconds were waited at most."""
    if error.errno in OURS:
        return overloaded(
            f"no connection to an endpoint can be made ({error.strerror})", "the open files limit"
        )
    name = spec.name
    which = f"endpoint '{name}'"
    if isinstance(error, TimeoutError):
        message = f"did not accept a connection within {timeout:g} s (proxy.connection_timeout)"
        return Failure(Kind.CONNECT_TIMEOUT, f"{which} {message}", name)
    if isinstance(error, socket.gaierror):
        message = f"cannot be connected to: its host name cannot be resolved ({error.strerror})"
        return Failure(Kind.CONNECT_DNS, f"{which} {message}", name)
    if isinstance(error, ssl.SSLError):
        message = f"cannot be connected to: the TLS handshake failed ({_tls_reason(error)})"
        return Failure(Kind.CONNECT_TLS, f"{which} {message}", name)
    # With several addresses behind a name, asyncio folds the errors into one text.
    if isinstance(error, ConnectionRefusedError) or "refused" in str(error).lower():
        return Failure(Kind.CONNECT_REFUSED, f"{which} refused the connection", name)
    return Failure(Kind.CONNECT_UNREACHABLE, f"{which} cannot be reached ({_reason(error)})", name)


def _tls_reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _OTHER_NAME:
            return "the certificate is for another name"
        return error.verify_message
    reason: str | None = getattr(error, "reason", None)
    return (reason or "no reason was given").lower().replace("_", " ")


def _reason(error: OSError) -> str:
    if error.errno is None or error.errno <= 0:
        return "no connection could be made"
    return os.strerror(error.errno).lower()
