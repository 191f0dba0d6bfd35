"""Tests of the conversion from endpoint settings to `EndpointSpec`."""

from collections.abc import Callable
from pathlib import Path

import pytest

from olla.fleet.endpoint import EndpointSpec, ModelFilter
from olla.settings import SettingsError, endpoint_specs, parse


def spec(text: str) -> EndpointSpec:
    """Return the only endpoint of a configuration."""
    (found,) = endpoint_specs(parse(text, {}).settings)
    return found


def test_every_setting_reaches_the_spec(endpoints: Callable[..., str]) -> None:
    """No setting is parsed and then dropped."""
    text = endpoints(
        "{url: 'https://Gpu:8443/base/', name: big, type: lmstudio, priority: 7,"
        " check_interval: 10s, check_timeout: 3s, num_parallel: 4, health_check_url: health,"
        " model_url: 'https://gpu:8443/base/v1/models', headers: {X-A: b},"
        " forward_authorization: true, model_filter: {include: [a], exclude: [b]}}"
    )
    assert spec(text) == EndpointSpec(
        name="big",
        host="gpu",
        port=8443,
        tls=True,
        authority="gpu:8443",
        base_path="/base",
        type="lm-studio",
        priority=7,
        check_interval=10.0,
        check_timeout=3.0,
        num_parallel=4,
        alive_path="/health",
        list_path="/v1/models",
        headers=(("X-A", "b"),),
        forward_authorization=True,
        models=ModelFilter(("a",), ("b",)),
    )


def test_a_url_is_enough(endpoints: Callable[..., str]) -> None:
    """All other keys have defaults. The default name is the position, which reveals no address to
    callers."""
    found = spec(endpoints("{url: 'http://10.0.0.5:11434'}"))
    assert (found.name, found.type, found.check_timeout) == ("endpoint-1", "auto", 2.0)
    assert found.url == "http://10.0.0.5:11434"


def test_the_default_check_timeout_is_shorter_than_the_interval(
    endpoints: Callable[..., str],
) -> None:
    """A short interval alone is not a conflict."""
    assert spec(endpoints("{url: 'http://a', check_interval: 1s}")).check_timeout == 0.5


def test_a_secret_file_deleted_after_loading_is_a_problem_of_its_endpoint(
    tmp_path: Path, endpoints: Callable[..., str]
) -> None:
    """No request is sent without its credentials."""
    path = tmp_path / "secret"
    path.write_text("t")
    text = endpoints(f"{{url: 'http://a', auth: {{type: bearer, token_file: '{path}'}}}}")
    settings = parse(text, {}).settings
    path.unlink()
    with pytest.raises(SettingsError, match=r"endpoint-1: auth: .*cannot be read"):
        endpoint_specs(settings)
    path.write_text("t\x01")
    with pytest.raises(SettingsError, match="printable ASCII"):
        endpoint_specs(settings)
