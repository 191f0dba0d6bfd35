"""Tests of the modules that a router imports."""

import subprocess
import sys


def test_a_router_without_a_store_imports_no_database_libraries() -> None:
    """They take a second and 40 MB, and most routers have neither keys nor replicas."""
    heavy = ("sqlalchemy", "alembic", "aiosqlite", "asyncpg", "redis")
    script = (
        "import sys, olla.app, olla.settings\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
