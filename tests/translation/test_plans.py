"""The paths and the codecs agree on what can be translated."""

from olla.dialects.dialect import Operation
from olla.dialects.routes import TRANSLATED_TO
from olla.translation.plans import plan_for


def test_every_operation_that_paths_translate_has_its_codecs() -> None:
    """And no other has: routing would never choose an endpoint for it."""
    dialects = {"ollama", "openai", "anthropic", "olla"}
    planned = {
        (dialect, operation)
        for dialect in dialects
        for operation in Operation
        if plan_for(dialect, operation) is not None
    }
    assert planned == set(TRANSLATED_TO)
