"""One configured backend server: what the operator said of it.

What is *known* of it at a moment (health, models) is an `EndpointView` in `snapshot`.
"""

import msgspec

__all__ = ["EndpointSpec", "ModelFilter"]


class ModelFilter(msgspec.Struct, frozen=True):
    """Which of an endpoint's models olla may use: globs over model names.

    `exclude` wins over `include`; an empty `include` means all.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


class EndpointSpec(msgspec.Struct, frozen=True):
    """What the configuration says of an endpoint. Unique by `name`.

    `host`, `port`, `tls` and `base_path` (no trailing slash, may be empty) come from its URL;
    `authority` is what its `Host` header says; `type` is a profile's name or `auto`; a higher
    `priority` is preferred; `headers` are added to every request sent to it, credentials
    included; `forward_authorization` passes the client's own `Authorization` on.
    `check_interval` and `check_timeout` are in seconds; `num_parallel` is how many requests it
    works on at a time per loaded model, None when the operator did not say; `vram` its bytes of
    memory for models, `max_loaded_models` how many may be loaded at a time and `load_bandwidth`
    at how many bytes per second from disk, None where that is to be learned. `alive_path` and
    `list_path` replace the profile's where given. `translates` says that requests in other
    dialects may be translated for it.
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
        """Its address as a person would write it (no credentials)."""
        return f"{'https' if self.tls else 'http'}://{self.authority}{self.base_path}"
