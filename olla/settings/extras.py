"""Check that the optional packages a setting needs are installed, without importing them."""

from importlib.util import find_spec

__all__ = ["require_extra"]

_EXTRAS = {"postgresql": "asyncpg", "redis": "redis"}
"""Extra of the distribution -> the module that it installs."""


def require_extra(extra: str, what: str) -> None:
    """Check that an extra is installed; `what` names the feature that needs it.

    Raises:
        ValueError: the extra is not installed; the message says how to install it.
    """
    if find_spec(_EXTRAS[extra]) is None:
        raise ValueError(
            f"{what} needs the extra '{extra}', which is not installed: pip install 'olla[{extra}]'"
        )
