"""Tests of the URLs of endpoints."""

import pytest

from olla.settings.endpoint_url import EndpointUrl, read_address, read_path


@pytest.mark.parametrize(
    ("url", "address", "authority"),
    [
        ("http://gpu-1:11434", EndpointUrl("http", "gpu-1", 11434, ""), "gpu-1:11434"),
        ("http://GPU-1:11434/", EndpointUrl("http", "gpu-1", 11434, ""), "gpu-1:11434"),
        ("http://gpu-1", EndpointUrl("http", "gpu-1", 80, ""), "gpu-1"),
        ("https://a.b/base/x/", EndpointUrl("https", "a.b", 443, "/base/x"), "a.b"),
        ("https://a.b:80", EndpointUrl("https", "a.b", 80, ""), "a.b:80"),
        ("http://[::1]:11434", EndpointUrl("http", "::1", 11434, ""), "[::1]:11434"),
        ("http://10.0.0.1:80/p", EndpointUrl("http", "10.0.0.1", 80, "/p"), "10.0.0.1"),
    ],
)
def test_a_url_is_split_into_host_port_and_path(
    url: str, address: EndpointUrl, authority: str
) -> None:
    """The authority omits the default port of the scheme."""
    assert read_address(url) == address
    assert address.authority == authority


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("gpu-1:11434", "must look like http://host:11434"),
        ("ftp://gpu-1", "must look like http://host:11434"),
        ("http://", "must look like http://host:11434"),
        ("http:///path", "must look like http://host:11434"),
        ("http://u:hunter2@gpu-1", "use auth"),
        ("http://u:hun/ter2@gpu-1", "use auth"),
        ("ftp://u:hunter2@gpu-1", "use auth"),
        ("http://@gpu-1", "use auth"),
        ("http://gpu 1", "not allowed in a URL"),
        ("http://gpu-1/\r\nX-Evil: 1", "not allowed in a URL"),
        ("http://gpü", "not allowed in a URL"),
        ("http://gpu,1", "is not a valid host name"),
        ("http://gpu-1:99999", "is not a valid URL"),
        ("http://gpu-1:0", "may only have a scheme"),
        ("http://gpu-1/?x=1", "may only have a scheme"),
        ("http://gpu-1/#x", "may only have a scheme"),
        ("http://[::1", "is not a valid URL"),
        ("", "not allowed in a URL"),
    ],
)
def test_an_invalid_url_is_rejected(url: str, message: str) -> None:
    """The message says what to write instead, and never repeats a password."""
    with pytest.raises(ValueError, match=message) as caught:
        read_address(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/health", "/health"),
        ("health", "/health"),
        ("/", "/"),
        ("/models?limit=5", "/models?limit=5"),
        ("http://gpu-1:8000/base/health", "/health"),
        ("http://GPU-1:8000/base/models?x=1", "/models?x=1"),
        ("http://gpu-1:8000/base", "/"),
    ],
)
def test_a_path_may_be_given_as_a_full_url(text: str, path: str) -> None:
    """The result is relative to the endpoint's path."""
    assert read_path(text, read_address("http://gpu-1:8000/base")) == path


@pytest.mark.parametrize(
    "text",
    [
        "http://gpu-2:8000/base/health",
        "https://gpu-1:8000/base/health",
        "http://gpu-1:8000/other/health",
        "http://gpu-1:8000/based/health",
        "/with blank",
        "",
    ],
)
def test_a_path_of_another_server_is_rejected(text: str) -> None:
    """Probing another server would say nothing about the endpoint."""
    with pytest.raises(ValueError, match=r"write a path|must be a path"):
        read_path(text, read_address("http://gpu-1:8000/base"))
