"""The shape of errors on olla's own surfaces."""

import json

from olla.dialects.internal import InternalDialect
from olla.failures import Failure, Kind


def test_an_error_has_code_message_and_details() -> None:
    """Scripts read the code, people the message, and what is known besides is in details."""
    failure = Failure(Kind.NO_ENDPOINT, "none is up", endpoint="gpu-1", retry_after=2.0)
    assert json.loads(InternalDialect().error_body(failure)) == {
        "error": {
            "code": "no_endpoint",
            "message": "none is up",
            "details": {"endpoint": "gpu-1", "retry_after_seconds": 2.0},
        }
    }
    bare = json.loads(InternalDialect().error_body(Failure(Kind.NOT_FOUND, "nothing")))
    assert bare["error"]["details"] == {}
