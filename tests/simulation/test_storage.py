"""What a simulated node has on disk."""

import pytest

from olla.simulation.model_catalogue import model_spec
from olla.simulation.storage import Storage


@pytest.fixture
def storage() -> Storage:
    """Two models, mistral the newer one."""
    storage = Storage()
    storage.add(model_spec("llama3.2"), 100)
    storage.add(model_spec("mistral"), 200)
    return storage


@pytest.mark.parametrize("name", ["llama3.2", "LLAMA3.2:LATEST", " library/llama3.2 "])
def test_names_are_found_in_every_spelling(storage: Storage, name: str) -> None:
    """Without case, tag or default namespace."""
    assert storage.find(name) == model_spec("llama3.2")


def test_the_newest_is_listed_first(storage: Storage) -> None:
    """By the time of its change."""
    assert [each.spec.name for each in storage.all()] == ["mistral:latest", "llama3.2:latest"]


def test_a_copy_is_another_name_for_the_same_weights(storage: Storage) -> None:
    """One digest, its own time; nothing can be copied from nothing."""
    assert storage.copy("llama3.2", "mine", 300)
    copied = storage.stored("mine")
    assert copied is not None
    assert copied.modified_at == 300
    assert copied.spec.digest == model_spec("llama3.2").digest
    assert not storage.copy("no", "yours", 300)


def test_deleting_a_name_leaves_the_other(storage: Storage) -> None:
    """The weights stay as long as a name is left."""
    storage.copy("llama3.2", "mine", 300)
    assert storage.delete("llama3.2")
    assert storage.find("llama3.2") is None
    assert storage.find("mine") is not None
    assert storage.delete("llama3.2") is None
