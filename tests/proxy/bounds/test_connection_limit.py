"""The limit on client connections."""

import resource

from olla.failures import Kind
from olla.proxy.bounds.connection_limit import connections_max, overloaded


def test_the_connection_limit_follows_the_open_files_limit() -> None:
    """Half of it, less a reserve, unless the operator configures a limit."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        most = connections_max(None)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert soft == hard or hard == resource.RLIM_INFINITY or soft >= before[0]
        assert most == max((soft - 64) // 2, 16)
        assert connections_max(7) == 7
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_overload_is_a_503_that_names_the_setting() -> None:
    """With a `Retry-After`."""
    failure = overloaded("too much", "server.some_setting")
    assert failure.kind is Kind.OVERLOADED
    assert (failure.status, failure.retry_after) == (503, 1.0)
    assert "server.some_setting" in failure.message
