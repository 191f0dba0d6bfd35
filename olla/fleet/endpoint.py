"""One configured backend server, as the operator described it.

`snapshot.EndpointView` holds what is known about it at a moment (health, models).
"""

import msgspec

__all__ = ["EndpointSpec", "ModelFilter"]


class ModelFilter(msgspec.Struct, frozen=True):
    """The models of an endpoint that olla may use: globs over model names.

    `exclude` takes precedence over `include`; an empty `include` means all.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


class EndpointSpec(msgspec.Struct, frozen=True):
    """The configuration of an endpoint. Unique by `name`.

    `host`, `port`, `tls` and `base_path` (without trailing slash, may be empty) come from its URL;
    `authority` is sent in `Host`. `type` is a profile's name or `auto`. A higher `priority` is
    preferred. `headers` are added to every request, credentials included. `forward_authorization`
    passes the client's own `Authorization` on. `check_interval` and `check_timeout` are in seconds.
    `num_parallel` is the number of concurrent requests per loaded model, `vram` the bytes of memory
    for models, `max_loaded_models` the number of loaded models, and `load_bandwidth` bytes per
    second from disk; all four are learned if None. `alive_path` and `list_path` replace the
    profile's. With `translates`, requests in other dialects are translated for it.
    """

    name: str
    host: str
    port: int
    tls: bool = False
    authority: str = ""
    base_path: str = ""
    type: str = "auto"
    priority: int = 100
    check_interval: float = 5.0
    check_timeout: float = 2.0
    num_parallel: int | None = None
    vram: int | None = None
    max_loaded_models: int | None = None
    load_bandwidth: float | None = None
    alive_path: str | None = None
    list_path: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    forward_authorization: bool = False
    models: ModelFilter = ModelFilter()
    translates: bool = True

    @property
    def url(self) -> str:
        """Its address in readable form, without credentials."""
        return f"{'https' if self.tls else 'http'}://{self.authority}{self.base_path}"
