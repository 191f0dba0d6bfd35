"""What a router loads that nobody asked for."""

import subprocess
import sys


def test_a_router_without_a_store_loads_no_library_of_databases() -> None:
    """They take a second and 40 MB, and most routers have neither keys nor replicas."""
    heavy = ("sqlalchemy", "alembic", "aiosqlite", "asyncpg", "redis")
    script = (
        "import sys, olla.app, olla.settings\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == "[]"
