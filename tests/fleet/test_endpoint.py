"""What the configuration says of an endpoint."""

import pytest

from olla.fleet.endpoint import EndpointSpec


@pytest.mark.parametrize(
    ("spec", "url"),
    [
        (EndpointSpec("a", "gpu-1", 11434, authority="gpu-1:11434"), "http://gpu-1:11434"),
        (EndpointSpec("a", "h", 443, tls=True, authority="h", base_path="/llm"), "https://h/llm"),
        (EndpointSpec("a", "::1", 80, authority="[::1]"), "http://[::1]"),
    ],
)
def test_its_address_reads_as_a_person_would_write_it(spec: EndpointSpec, url: str) -> None:
    """Scheme, authority and path; a port only where the authority has one."""
    assert spec.url == url


def test_its_address_tells_no_secret() -> None:
    """Credentials are headers, and no part of the URL that logs and pages show."""
    spec = EndpointSpec("a", "h", 80, authority="h", headers=(("Authorization", "Bearer s3cret"),))
    assert "s3cret" not in spec.url
