"""Convert endpoint settings to the `EndpointSpec` that the fleet uses."""

from olla.fleet.endpoint import EndpointSpec, ModelFilter
from olla.settings.endpoint import Endpoint
from olla.settings.endpoint_auth import credentials
from olla.settings.endpoint_url import read_address, read_path
from olla.settings.model import Settings
from olla.settings.problems import Problem, SettingsError

__all__ = ["endpoint_specs"]


def endpoint_specs(settings: Settings) -> tuple[EndpointSpec, ...]:
    """Return the configured endpoints, with secrets read from their files.

    Raises:
        SettingsError: a secret file has become unreadable since the settings were loaded.
    """
    specs: list[EndpointSpec] = []
    problems: list[Problem] = []
    for endpoint in settings.discovery.static.endpoints:
        try:
            specs.append(_spec(endpoint))
        except ValueError as error:
            problems.append(Problem(endpoint.name, 0, 0, "auth", str(error)))
    if problems:
        raise SettingsError(problems)
    return tuple(specs)


def _spec(endpoint: Endpoint) -> EndpointSpec:
    address = read_address(endpoint.url)

    def path(text: str | None) -> str | None:
        return None if text is None else read_path(text, address)

    headers = dict(endpoint.headers)
    if endpoint.auth is not None:
        name, value = credentials(endpoint.auth)
        headers[name] = value
    return EndpointSpec(
        name=endpoint.name,
        host=address.host,
        port=address.port,
        tls=address.scheme == "https",
        authority=address.authority,
        base_path=address.path,
        type=endpoint.type,
        priority=endpoint.priority,
        check_interval=endpoint.check_interval,
        check_timeout=endpoint.effective_check_timeout,
        num_parallel=endpoint.num_parallel,
        vram=endpoint.vram,
        max_loaded_models=endpoint.max_loaded_models,
        load_bandwidth=endpoint.load_bandwidth,
        alive_path=path(endpoint.health_check_url),
        list_path=path(endpoint.model_url),
        headers=tuple(headers.items()),
        forward_authorization=endpoint.forward_authorization,
        translates=endpoint.translation == "auto",
        models=ModelFilter(endpoint.model_filter.include, endpoint.model_filter.exclude),
    )
