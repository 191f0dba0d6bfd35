"""The last record of an Ollama answer."""

import msgspec
import pytest

from olla.dialects.final_record import FINAL


def test_a_usual_record_is_read_at_once() -> None:
    """What is not asked for is skipped."""
    record = FINAL.decode(b'{"model":"m","done":true,"context":[1,2],"eval_count":3}')
    assert record.done is True
    assert record.eval_count == 3
    assert record.prompt_eval_count is None


@pytest.mark.parametrize(
    "odd", [b"", b"[]", b'{"done":"yes"}', b'{"eval_count":-1}', b'{"eval_count":1e400}', b"{"]
)
def test_what_does_not_fit_is_said_to(odd: bytes) -> None:
    """And read in another way."""
    with pytest.raises((msgspec.MsgspecError, ValueError)):
        FINAL.decode(odd)
