"""What URLs of endpoints may look like."""

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
def test_a_url_tells_where_the_server_is(url: str, address: EndpointUrl, authority: str) -> None:
    """Host, port and path are read; the authority leaves the scheme's own port out."""
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
        ("http://gpu 1", "characters that no URL has"),
        ("http://gpu-1/\r\nX-Evil: 1", "characters that no URL has"),
        ("http://gpü", "characters that no URL has"),
        ("http://gpu,1", "no host name"),
        ("http://gpu-1:99999", "is not a URL"),
        ("http://gpu-1:0", "perhaps a path"),
        ("http://gpu-1/?x=1", "perhaps a path"),
        ("http://gpu-1/#x", "perhaps a path"),
        ("http://[::1", "is not a URL"),
        ("", "characters that no URL has"),
    ],
)
def test_what_is_no_plain_http_url_is_refused(url: str, message: str) -> None:
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
def test_a_path_may_be_written_as_a_whole_url(text: str, path: str) -> None:
    """What comes out is what follows the endpoint's own path."""
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
def test_a_path_of_another_server_is_refused(text: str) -> None:
    """olla asks the endpoint itself; asking another server in its stead would tell nothing."""
    with pytest.raises(ValueError, match=r"write a path|must be a path"):
        read_path(text, read_address("http://gpu-1:8000/base"))
