"""Names of files that no system call takes."""

from pathlib import Path

import pytest

from olla.settings import SettingsError, load


@pytest.mark.parametrize(
    ("path", "environ"),
    [(Path("a\0b"), {}), (None, {"OLLA_CONFIG_FILE": "a\0b"})],
)
def test_a_name_with_a_nul_is_a_problem_like_any_other(
    path: Path | None, environ: dict[str, str]
) -> None:
    """Not another exception."""
    with pytest.raises(SettingsError) as caught:
        load(path, environ)
    (problem,) = caught.value.problems
    assert "cannot be read" in problem.message
