"""What was used is kept, summed and forgotten."""

import msgspec
import pytest

from olla.failures import Failure, Kind
from olla.store.database import Store
from olla.store.usage import UsageRow, UsageSum, row_of
from tests.telemetry.samples import record

T = 1_700_000_000.0


def row(at: float, **more: object) -> UsageRow:
    """A request that ended `at` seconds after T."""
    made = row_of(record(caller="key:1", owner="ada", key_name="laptop", tier="standard"))
    return msgspec.structs.replace(made, at=T + at, **more)


def test_a_record_becomes_a_row() -> None:
    """The row is of when the answer ended; what was not measured is None."""
    made = row_of(
        record(
            caller="key:1", owner="ada", key_name="laptop", tier="gold", queue_seconds=0.5,
            estimated=True, content=("question", "answer"),
        )
    )  # fmt: skip
    assert made == UsageRow(
        at=1_700_000_002.75,
        request_id="r-1",
        caller="key:1",
        owner="ada",
        key_name="laptop",
        tier="gold",
        operation="chat",
        dialect="ollama",
        model="llama3",
        endpoint="gpu-1",
        status=200,
        failure=None,
        streaming=True,
        prompt_tokens=12,
        output_tokens=80,
        estimated=True,
        queue_seconds=0.5,
        first_token_seconds=0.25,
        total_seconds=2.5,
        content=("question", "answer"),
    )
    failed = row_of(
        record(
            model=None, endpoint=None, first_byte=None, prompt_tokens=None, output_tokens=None,
            failure=Failure(Kind.FORBIDDEN, "no"), status=403,
        )
    )  # fmt: skip
    assert (failed.model, failed.endpoint, failed.failure) == ("", "", Kind.FORBIDDEN.value)
    assert (failed.prompt_tokens, failed.output_tokens) == (None, None)
    assert (failed.first_token_seconds, failed.queue_seconds) == (None, None)


async def test_rows_come_back_as_they_were_written(store: Store) -> None:
    """Newest first; a page ends where the one before began."""
    rows = [row(at) for at in range(5)]
    rows[2] = row(2, failure="stalled", prompt_tokens=None, total_seconds=None, streaming=False)
    await store.usage.add(rows)
    await store.usage.add([])
    assert await store.usage.recent(10) == rows[::-1]
    assert await store.usage.recent(2) == [rows[4], rows[3]]
    assert await store.usage.recent(2, before=T + 3) == [rows[2], rows[1]]
    assert await store.usage.total() == 5


async def test_an_owner_sees_only_what_is_its_own(store: Store) -> None:
    """Rows of others do not come up."""
    mine, other = row(1), row(2, owner="bob")
    await store.usage.add([mine, other])
    assert await store.usage.recent(10, owner="ada") == [mine]
    assert await store.usage.recent(10, owner="eve") == []


async def test_nothing_in_a_record_keeps_a_batch_from_being_written(store: Store) -> None:
    """What clients and endpoints choose may be no text that a database takes, or no number."""
    nasty = record(
        id="a\0b" * 1000, model="half \ud800", caller="addr:\0", key_name="\udcff", owner="\n",
        prompt_tokens=10**30, output_tokens=-1, content=("\0\ud800ü\n", "x" * 100_000),
    )  # fmt: skip
    await store.usage.add([row(0), row_of(nasty)])
    (kept, _) = await store.usage.recent(2)
    assert (kept.prompt_tokens, kept.output_tokens) == (2**31 - 1, 0)
    assert (kept.model, kept.caller, kept.owner) == ("half ?", "addr:\ufffd", "\n")
    assert len(kept.request_id) == 256
    assert await store.usage.content(kept.request_id) == ("\ufffd?ü\n", "x" * 100_000)


async def test_content_is_kept_only_where_there_is_some(store: Store) -> None:
    """The newest of a request's id."""
    await store.usage.add([row(1), row(2, request_id="r-2", content=("a", "b"))])
    await store.usage.add([row(3, request_id="r-2", content=("c", "d"))])
    assert await store.usage.content("r-1") is None
    assert await store.usage.content("r-2") == ("c", "d")


async def test_tokens_are_summed_by_caller(store: Store) -> None:
    """Those of prompts and answers, from a time on; who has reported none has 0."""
    await store.usage.add(
        [
            row(0, prompt_tokens=1000),
            row(1, prompt_tokens=1, output_tokens=2),
            row(2, prompt_tokens=None, output_tokens=4),
            row(3, caller="addr:10.0.0.1", prompt_tokens=None, output_tokens=None),
            *(row(4, caller="key:2", prompt_tokens=2**31 - 1) for _ in range(3)),
        ]
    )
    assert await store.usage.tokens_since(T + 1) == {
        "key:1": 7,
        "addr:10.0.0.1": 0,
        "key:2": 3 * (2**31 - 1 + 80),
    }


async def test_use_is_summed_under_what_is_asked_for(store: Store) -> None:
    """From a time to before another, most tokens first."""
    await store.usage.add(
        [
            row(0),
            row(1, model="a", owner="bob", failure="stalled"),
            row(2, model="a", prompt_tokens=None),
            row(3, model="b", endpoint="gpu-2", caller="key:2", prompt_tokens=500),
            row(4),
        ]
    )

    async def sums(by: str) -> list[UsageSum]:
        return await store.usage.summary(T + 1, T + 4, by=by)

    assert await sums("model") == [UsageSum("b", 1, 0, 500, 80), UsageSum("a", 2, 1, 12, 160)]
    assert [each.of for each in await sums("owner")] == ["ada", "bob"]
    assert [each.of for each in await sums("endpoint")] == ["gpu-2", "gpu-1"]
    assert [each.of for each in await sums("caller")] == ["key:2", "key:1"]
    with pytest.raises(ValueError, match="caller, owner, model, endpoint"):
        await sums("status")


async def test_what_is_old_is_forgotten(store: Store) -> None:
    """However much that is; rows and content alike, and nothing that is younger."""
    old = [row(at / 1000, content=("a", "b") if at < 10 else None) for at in range(4500)]
    young = row(5, request_id="young", content=("c", "d"))
    await store.usage.add([*old, young])
    assert await store.usage.forget(T + 5) == 4500
    assert await store.usage.forget(T + 5) == 0
    assert await store.usage.recent(10) == [msgspec.structs.replace(young, content=None)]
    assert await store.usage.content("r-1") is None
    assert await store.usage.content("young") == ("c", "d")
