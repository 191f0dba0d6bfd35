"""Keys are made, listed and revoked; a key is seen once."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from olla.access.keys import digest_of
from olla.dialects.dialect import Right
from olla.failures import Failed, Kind
from olla.store.database import Store
from olla.surfaces.key_book import KeyBook, shown_key, shown_revoked
from tests.surfaces.known_fleet import StillClock


class InStore:
    """A store without a router."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def create(self, key):  # type: ignore[no-untyped-def]
        return await self.store.keys.create(key)

    async def revoke(self, id, *, owner=None, made_by=None):  # type: ignore[no-untyped-def]
        at = 1_800_000_005.0
        return await self.store.keys.revoke(id, at, owner=owner, made_by=made_by)

    async def tried(self, work):  # type: ignore[no-untyped-def]
        return await work(self.store)


@pytest.fixture
async def book(tmp_path: Path, clock: StillClock) -> AsyncIterator[KeyBook]:
    """Of an empty store."""
    store = await Store.open(f"sqlite:///{tmp_path / 'keys.db'}")
    yield KeyBook(InStore(store), clock)
    await store.close()


async def test_what_is_kept_is_not_the_key(book: KeyBook) -> None:
    """Its digest is, and how it begins."""
    secret, key = await book.create(name="ci")
    assert key.digest == digest_of(secret)
    assert secret.startswith(key.shown)
    assert len(secret) >= 40
    assert secret not in str(shown_key(key))
    assert (await book.create(name="ci"))[0] != secret


async def test_a_key_is_made_as_it_was_asked_for(book: KeyBook, clock: StillClock) -> None:
    """And what is shown of it says so."""
    _, key = await book.create(
        name="ci",
        owner="alice",
        tier="member",
        rights=frozenset({Right.EMBED}),
        models=("nomic-*",),
        endpoints=("gpu-1",),
        lifetime=60.0,
    )
    assert key.expires == clock.unix + 60.0
    assert shown_key(key) == {
        "id": 1,
        "name": "ci",
        "user_id": "alice",
        "tier": "member",
        "prefix": key.shown,
        "operations": ["embed"],
        "models": ["nomic-*"],
        "endpoints": ["gpu-1"],
        "is_active": True,
        "created_at": "2027-01-15T08:00:00.000Z",
        "expires_at": "2027-01-15T08:01:00.000Z",
        "revoked_at": None,
        "made_by": None,
    }


async def test_who_made_a_key_is_shown_and_what_ends_with_it(book: KeyBook) -> None:
    """By the maker's id; of a key in the configuration nothing of its secret."""
    await book.create(name="root")
    for made_by in ("1", "2", "static:ci#0123", "anonymous"):
        await book.create(name="x", made_by=made_by)
    shown = [shown_key(key)["made_by"] for key in await book.keys()]
    assert shown == [None, 1, 2, "static:ci", "anonymous"]
    assert [key.id for key in await book.keys(made_by="anonymous")] == ["5"]
    ended = shown_revoked(await book.revoke("1"))
    assert (ended["id"], ended["is_active"], ended["also_revoked"]) == (1, False, [2, 3])


@pytest.mark.parametrize("what", ["name", "owner", "tier"])
@pytest.mark.parametrize("text", ["a" * 101, "a\x00b", "line\nline", "\x1b[31m"])
async def test_texts_that_could_do_harm_are_refused(book: KeyBook, what: str, text: str) -> None:
    """They stand in logs, headers and tables later."""
    with pytest.raises(Failed) as raised:
        await book.create(**{"name": "x", what: text})
    assert raised.value.failure.kind is Kind.BAD_REQUEST
    assert await book.keys() == []


async def test_keys_are_listed_by_owner(book: KeyBook) -> None:
    """Oldest first, revoked ones too."""
    for owner in ("alice", "bob", "alice"):
        await book.create(name="x", owner=owner)
    await book.revoke("1")
    assert [key.id for key in await book.keys()] == ["1", "2", "3"]
    assert [(key.id, key.revoked is None) for key in await book.keys("alice")] == [
        ("1", False),
        ("3", True),
    ]
    assert await book.keys("nobody") == []


@pytest.mark.parametrize(("id", "owner"), [("2", None), ("1", "bob"), ("x", None), ("1;", None)])
async def test_what_is_no_key_or_not_his_cannot_be_revoked(
    book: KeyBook, id: str, owner: str | None
) -> None:
    """It is not found, whoever else has it, and nothing has changed."""
    await book.create(name="x", owner="alice")
    with pytest.raises(Failed) as raised:
        await book.revoke(id, owner)
    assert raised.value.failure.kind is Kind.NOT_FOUND
    assert (await book.keys())[0].revoked is None
    assert (await book.revoke("1", "alice"))[0].revoked == 1_800_000_005.0


@pytest.mark.parametrize("what", ["models", "endpoints"])
async def test_a_key_for_an_empty_name_is_refused(book: KeyBook, what: str) -> None:
    """It could use nothing, and would look like one that may use all."""
    for names in (("",), ("llama*", " ")):
        with pytest.raises(Failed, match="empty name"):
            await book.create(**{"name": "x", what: names})
    assert await book.keys() == []


async def test_a_key_for_an_endpoint_that_is_none_is_refused(
    book: KeyBook, clock: StillClock
) -> None:
    """Where it is known which there are."""
    strict = KeyBook(book._books, clock, None, lambda: {"gpu-1", "gpu-2"})
    with pytest.raises(Failed, match="'gpu-9'; there are gpu-1, gpu-2"):
        await strict.create(name="x", endpoints=("gpu-1", "gpu-9"))
    await strict.create(name="x", endpoints=("gpu-2",))


async def test_a_key_of_a_tier_that_is_none_is_refused(book: KeyBook, clock: StillClock) -> None:
    """It would have no limits, and nobody would notice."""
    strict = KeyBook(book._books, clock, lambda: {"standard", "premium"})
    with pytest.raises(Failed, match="did you mean premium"):
        await strict.create(name="x", tier="premum")
    await strict.create(name="x", tier="premium")
