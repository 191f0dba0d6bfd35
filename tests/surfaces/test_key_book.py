"""Keys are made, listed and revoked in one way, whoever asks."""

import pytest

from olla.failures import Failed
from olla.surfaces.key_book import KeyBook, shown_key
from tests.guarding.conftest import MakeFleet, make_fleet

__all__ = ["make_fleet"]


async def test_a_key_is_shown_once_and_then_only_how_it_begins(make_fleet: MakeFleet) -> None:
    """What is listed has no secret."""
    app = (await make_fleet()).app
    book = KeyBook(app.guarding.keeping, app.guarding.gate.clock)
    secret, key = await book.create(name="ci", owner="team", tier="premium", lifetime=60.0)
    (listed,) = await book.keys("team")
    assert listed == key
    assert secret not in str(shown_key(listed))
    assert secret.startswith(shown_key(listed)["prefix"])
    assert shown_key(listed)["id"] == 1
    assert app.guarding.keyring.find(secret) is not None


async def test_only_a_key_that_is_there_can_be_revoked(make_fleet: MakeFleet) -> None:
    """And only by its owner's name, where one is named."""
    app = (await make_fleet()).app
    book = KeyBook(app.guarding.keeping, app.guarding.gate.clock)
    _, key = await book.create(name="ci", owner="team")
    for id, owner in (("99", None), (key.id, "others"), ("x", None)):
        with pytest.raises(Failed, match="there is no key"):
            await book.revoke(id, owner)
    revoked = await book.revoke(key.id, "team")
    assert not shown_key(revoked)["is_active"]


@pytest.mark.parametrize("name", ["x" * 101, "a\nb", "\0"])
async def test_odd_names_are_refused(name: str, make_fleet: MakeFleet) -> None:
    """They end in logs and tables."""
    app = (await make_fleet()).app
    book = KeyBook(app.guarding.keeping, app.guarding.gate.clock)
    with pytest.raises(Failed, match="printable"):
        await book.create(name=name)
