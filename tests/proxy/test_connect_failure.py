"""Why a connection could not be made."""

import os
import socket
import ssl

import pytest

from olla.failures import OURS, Kind
from olla.fleet.endpoint import EndpointSpec
from olla.proxy.connect_failure import connect_failure

SPEC = EndpointSpec("gpu-1", "node", 11434, authority="node:11434")


@pytest.mark.parametrize(
    ("error", "kind", "word"),
    [
        (TimeoutError(), Kind.CONNECT_TIMEOUT, "within 2 s"),
        (socket.gaierror(-2, "unknown"), Kind.CONNECT_DNS, "resolved"),
        (ssl.SSLError("bad"), Kind.CONNECT_TLS, "TLS"),
        (ConnectionRefusedError(), Kind.CONNECT_REFUSED, "refused"),
        (OSError("Multiple exceptions: Connect call refused, refused"), Kind.CONNECT_REFUSED, ""),
        (OSError(113, "no route"), Kind.CONNECT_UNREACHABLE, "no route"),
    ],
)
def test_each_reason_has_its_kind(error: OSError, kind: Kind, word: str) -> None:
    """And the message says which endpoint, where, and why."""
    failure = connect_failure(SPEC, error, 2.0)
    assert failure.kind is kind
    assert failure.endpoint == "gpu-1"
    assert "'gpu-1' at node:11434" in failure.message
    assert word in failure.message


@pytest.mark.parametrize("number", sorted(OURS))
def test_running_out_of_files_or_memory_is_not_the_endpoints_fault(number: int) -> None:
    """It is olla's own, and passes."""
    failure = connect_failure(SPEC, OSError(number, os.strerror(number)), 10.0)
    assert failure.kind is Kind.OVERLOADED
    assert failure.endpoint is None
    assert failure.retry_after == 1.0
