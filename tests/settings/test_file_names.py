"""Tests of file names that the operating system rejects."""

from pathlib import Path

import pytest

from olla.settings import SettingsError, load


@pytest.mark.parametrize(
    ("path", "environ"),
    [(Path("a\0b"), {}), (None, {"OLLA_CONFIG_FILE": "a\0b"})],
)
def test_a_name_with_a_nul_is_a_problem(path: Path | None, environ: dict[str, str]) -> None:
    """It raises `SettingsError` and no other exception."""
    with pytest.raises(SettingsError) as caught:
        load(path, environ)
    (problem,) = caught.value.problems
    assert "cannot read the file" in problem.message
