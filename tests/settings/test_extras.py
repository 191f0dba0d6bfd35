"""Tests of the optional packages that settings need."""

from importlib.metadata import metadata, requires

import pytest

from olla.settings import extras
from olla.settings.extras import require_extra
from olla.settings.state_url import checked_state_url
from olla.settings.store_url import read_url


def test_extras_are_those_of_the_distribution() -> None:
    """Each extra exists, and installs the module that is checked."""
    named = metadata("olla").get_all("Provides-Extra") or []
    for extra, module in extras._EXTRAS.items():
        assert extra in named
        assert any(
            each.startswith(module) and f"extra == '{extra}'" in each.replace('"', "'")
            for each in requires("olla") or []
        )


@pytest.mark.parametrize(
    ("read", "url", "extra"),
    [
        (read_url, "postgresql://olla@db/olla", "postgresql"),
        (checked_state_url, "redis://127.0.0.1:6379/0", "redis"),
    ],
)
def test_a_missing_extra_is_named_with_its_command(
    read: object, url: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A URL whose library is missing is rejected, and the message says how to install it."""
    assert callable(read)
    read(url)  # installed here
    monkeypatch.setitem(extras._EXTRAS, extra, "olla_module_that_is_not_there")
    with pytest.raises(ValueError, match=rf"pip install 'olla\[{extra}\]'"):
        read(url)


def test_an_installed_extra_passes() -> None:
    """No error is raised if the module can be found."""
    require_extra("redis", "this")
