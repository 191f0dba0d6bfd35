"""Which models get a label of their own."""

from olla.telemetry.model_labels import OTHER, ModelLabels
from tests.telemetry.samples import fleet


def test_a_label_is_the_endpoints_own_spelling() -> None:
    """All spellings of one model share the label its endpoint lists."""
    labels = ModelLabels(lambda: fleet("Llama3:latest"))
    spellings = ("llama3", "LLAMA3:latest", "library/llama3", "registry.ollama.ai/library/llama3")
    assert {labels.label(name) for name in spellings} == {"Llama3:latest"}


def test_unknown_and_endless_names_are_other() -> None:
    """A name no endpoint lists has no label of its own, however long it is."""
    labels = ModelLabels(lambda: fleet("llama3"))
    assert labels.label("nowhere") == OTHER
    assert labels.label("llama3" + "x" * 10_000_000) == OTHER
    assert labels.label("") == OTHER


def test_a_model_that_appears_later_gets_its_label() -> None:
    """Having been unknown once does not stick."""
    known: list[str] = []
    labels = ModelLabels(lambda: fleet(*known))
    assert labels.label("llama3") == OTHER
    known.append("llama3:latest")
    assert labels.label("llama3") == "llama3:latest"
