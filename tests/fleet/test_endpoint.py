"""What the operator said of an endpoint."""

from olla.fleet.endpoint import EndpointSpec


def test_its_address_reads_as_a_person_would_write_it() -> None:
    """Scheme, authority and base path; never a credential."""
    spec = EndpointSpec(
        "a",
        "host",
        443,
        tls=True,
        authority="host",
        base_path="/p",
        headers=(("Authorization", "Bearer secret"),),
    )
    assert spec.url == "https://host/p"
