"""A gate as it is when nothing is configured, or with what a test wants of it."""

from olla.access.keyring import Keyring
from olla.access.limiter import Limiter
from olla.access.policy import AccessPolicy
from olla.clock import Clock, SystemClock
from olla.proxy.auth.authenticate import Authenticator

__all__ = ["open_authenticator"]


def open_authenticator(
    policy: AccessPolicy | None = None,
    keyring: Keyring | None = None,
    clock: Clock | None = None,
    exceeded: list[tuple[str, bool]] | None = None,
) -> Authenticator:
    """Everybody is let in, but for what `policy` says; `exceeded` takes what limits refuse."""
    told = exceeded if exceeded is not None else []
    return Authenticator(
        keyring or Keyring(),
        policy or AccessPolicy(),
        Limiter(),
        clock or SystemClock(),
        exceeded=lambda limit, shadow: told.append((limit, shadow)),
    )
