"""What a decision log holds."""

import msgspec

from olla.routing.journal import Decided, FleetFacts, JournalLine, facts
from tests.views import MODEL, twins, view


def test_the_fleet_is_told_as_it_was_learned() -> None:
    """Rates per second, bytes, slots; a server that loads nothing is marked."""
    kept = twins(view("a", num_parallel=3), view("b", 1, profile="vllm"))
    told = facts(kept, "priority", 5.0)
    assert (told.at, told.policy) == (5.0, "priority")
    ollama, other = told.endpoints
    assert ollama.ollama
    assert not other.ollama
    (model,) = ollama.models
    assert (model.name, model.slots) == (MODEL, 3)
    instance = kept.instances(MODEL)[0]
    assert model.prompt_rate == 1 / instance.rates.prefill
    assert ollama.cold_bandwidth == 1e9 / instance.twin.rates.load_seconds(1e9, warm=False)


def test_lines_are_told_apart_by_their_kind() -> None:
    """Both read back as they were."""
    decoder = msgspec.json.Decoder(JournalLine)
    instances: list[FleetFacts | Decided] = [
        facts(twins(view("a")), "priority", 1.0),
        Decided(1.0, "m", "chat", "a", "model_loaded", 200, load_options=(("num_ctx", 8.0),)),
    ]
    for instance in instances:
        assert decoder.decode(msgspec.json.encode(instance)) == instance
