"""Why a connection could not be made."""

import os
import socket
import ssl

import pytest

from olla.failures import OURS, Kind
from olla.fleet.endpoint import EndpointSpec
from olla.proxy.connect_failure import connect_failure


def verification(code: int, message: str) -> ssl.SSLCertVerificationError:
    """A certificate that is refused."""
    error = ssl.SSLCertVerificationError(1, message)
    error.verify_code, error.verify_message = code, message
    return error


SPEC = EndpointSpec("gpu-1", "node", 11434, authority="node:11434")


@pytest.mark.parametrize(
    ("error", "kind", "word"),
    [
        (TimeoutError(), Kind.CONNECT_TIMEOUT, "within 2 s"),
        (socket.gaierror(-2, "unknown"), Kind.CONNECT_DNS, "resolved"),
        (ssl.SSLError("bad"), Kind.CONNECT_TLS, "TLS"),
        (ConnectionRefusedError(), Kind.CONNECT_REFUSED, "refused"),
        (OSError("Multiple exceptions: Connect call refused, refused"), Kind.CONNECT_REFUSED, ""),
        (OSError(113, "Connect call failed ('node', 11434)"), Kind.CONNECT_UNREACHABLE, "no route"),
        (OSError("Multiple exceptions: node:11434"), Kind.CONNECT_UNREACHABLE, "could be made"),
        (verification(62, "not valid for 'node'"), Kind.CONNECT_TLS, "for another name"),
        (verification(18, "self-signed certificate"), Kind.CONNECT_TLS, "self-signed"),
    ],
)
def test_each_reason_has_its_kind(error: OSError, kind: Kind, word: str) -> None:
    """And the message says which endpoint and why, and to nobody where it is."""
    failure = connect_failure(SPEC, error, 2.0)
    assert failure.kind is kind
    assert failure.endpoint == "gpu-1"
    assert failure.message.startswith("endpoint 'gpu-1' ")
    assert word in failure.message
    assert "node" not in failure.message
    assert "11434" not in failure.message


@pytest.mark.parametrize("number", sorted(OURS))
def test_running_out_of_files_or_memory_is_not_the_endpoints_fault(number: int) -> None:
    """It is olla's own, and passes."""
    failure = connect_failure(SPEC, OSError(number, os.strerror(number)), 10.0)
    assert failure.kind is Kind.OVERLOADED
    assert failure.endpoint is None
    assert failure.retry_after == 1.0
