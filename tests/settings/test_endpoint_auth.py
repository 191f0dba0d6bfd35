"""Tests of the credentials that olla sends to an endpoint."""

from collections.abc import Callable
from pathlib import Path

import pytest

from olla.settings import SettingsError, endpoint_specs, parse


@pytest.mark.parametrize(
    ("auth", "header"),
    [
        ("{type: bearer, token: t0k}", ("Authorization", "Bearer t0k")),
        ("{type: bearer, token_file: SECRET}", ("Authorization", "Bearer from file")),
        ("{type: api_key, key: k}", ("X-Api-Key", "k")),
        ("{type: api_key, key_file: SECRET, header: X-Mine}", ("X-Mine", "from file")),
        ("{type: basic, username: u, password: p}", ("Authorization", "Basic dTpw")),
        ("{type: BASIC, username: u, password: ü}", ("Authorization", "Basic dTrDvA==")),
    ],
)
def test_auth_becomes_a_header(
    auth: str, header: tuple[str, str], tmp_path: Path, endpoints: Callable[..., str]
) -> None:
    """Secrets may be read from files; the final line break is stripped."""
    (tmp_path / "secret").write_text("from file\n")
    auth = auth.replace("SECRET", f"'{tmp_path / 'secret'}'")
    text = endpoints(f"{{url: 'http://a', auth: {auth}}}")
    (spec,) = endpoint_specs(parse(text, {}).settings)
    assert spec.headers == (header,)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"  \n", "is empty"),
        (b"a\nb", "on one line"),
        (b"\xff", "is not UTF-8 text"),
        (b"x" * 70000, "on one line"),
    ],
)
def test_an_invalid_secret_file_is_reported_at_load(
    content: bytes, message: str, tmp_path: Path, endpoints: Callable[..., str]
) -> None:
    """With the key and line that name the file, before the router starts."""
    path = tmp_path / "secret"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=message) as caught:
        parse(endpoints(f"{{url: 'http://a', auth: {{type: bearer, token_file: '{path}'}}}}"), {})
    (problem,) = caught.value.problems
    assert problem.key == "discovery.static.endpoints[0].auth.token_file"
