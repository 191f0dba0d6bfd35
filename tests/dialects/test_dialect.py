"""The words every wire format shares."""

import copy
import pickle

import pytest

from olla.dialects.dialect import Operation


@pytest.mark.parametrize("operation", Operation)
def test_an_operation_is_one_object(operation: Operation) -> None:
    """Sets and tables find it however it was come by, though it hashes by identity."""
    for same in (Operation(operation.value), copy.deepcopy(operation)):
        assert {operation: 1}[same] == 1
    assert {operation: 1}[pickle.loads(pickle.dumps(operation))] == 1


def test_a_slot_is_occupied_by_what_computes() -> None:
    """Inference keeps a slot of a loaded model busy; lists and management do not."""
    busy = {operation for operation in Operation if operation.occupies_slot}
    assert {Operation.CHAT, Operation.GENERATE, Operation.EMBED, Operation.MESSAGES} <= busy
    assert not busy & {Operation.LIST, Operation.SHOW, Operation.PULL, Operation.OTHER}
    assert not busy & {Operation.COUNT_TOKENS, Operation.TOKENIZE}
