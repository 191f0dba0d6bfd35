"""Optional parts of the installation that a setting needs.

Says whether they are there; imports nothing of them.
"""

from importlib.util import find_spec

__all__ = ["require_extra"]

_EXTRAS = {"postgresql": "asyncpg", "redis": "redis"}
"""The extras of the distribution, each with the module that it installs."""


def require_extra(extra: str, what: str) -> None:
    """Do nothing when an extra is installed; `what` names the thing that needs it.

    Raises:
        ValueError: the extra is not installed; the message says how to install it.
    """
    if find_spec(_EXTRAS[extra]) is None:
        raise ValueError(
            f"{what} needs the extra '{extra}', which is not installed: pip install 'olla[{extra}]'"
        )
