"""A PostgreSQL server of the tests' own."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import asyncpg

INSTALL = "PostgreSQL's server is not here: apt-get install postgresql"
_DEADLINE_SECONDS = 15.0
_ACCOUNTS = ("postgres", "nobody")


def binaries() -> Path | None:
    """The folder of the newest server that is installed."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"),
        key=lambda path: [int(part) for part in path.parent.name.split(".") if part.isdigit()],
    )
    if found and (found[-1] / "initdb").exists():
        return found[-1]
    on_path = shutil.which("pg_ctl")
    return None if on_path is None else Path(on_path).resolve().parent


class Cluster:
    """A server on a port of 127.0.0.1 that trusts everybody but `guarded`, whose password is asked.

    PostgreSQL refuses to run as root; root lends it an account without rights.
    """

    def __init__(self, folder: Path) -> None:
        self._binaries = folder
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.port: int = server.getsockname()[1]
        self._folder = Path(tempfile.mkdtemp(prefix="olla-postgresql-"))
        self._data = self._folder / "data"
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            account = next(name for name in _ACCOUNTS if _known(name))
            entry = pwd.getpwnam(account)
            self._as = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
            os.chown(self._folder, entry.pw_uid, entry.pw_gid)
        self._process: subprocess.Popen[bytes] | None = None
        self._made = 0
        subprocess.run(
            [
                *(folder / "initdb", "-D", self._data, "-U", "olla", "--auth=trust"),
                *("--no-sync", "--no-locale", "--encoding=UTF8"),
            ],
            check=True,
            capture_output=True,
            cwd=self._folder,
            **self._as,
        )
        rules = self._data / "pg_hba.conf"
        rules.write_text(
            "host all guarded 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n"
        )

    def url(self, database: str, user: str = "olla") -> str:
        """The URL of a database; `user` may have a password behind a colon."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start the server, and wait until it takes connections."""
        options = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "shared_buffers": "16MB",
            "max_connections": "60",
        }
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(self._binaries / "postgres", "-D", self._data),
                    *(f"--{name}={value}" for name, value in options.items()),
                ],
                stdout=subprocess.DEVNULL,
                stderr=log,
                cwd=self._folder,
                start_new_session=True,
                **self._as,
            )
        deadline = time.monotonic() + _DEADLINE_SECONDS
        ready = [self._binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(ready, check=False).returncode != 0:
            said = (self._folder / "log").read_text()
            assert self._process.poll() is None, said
            assert time.monotonic() < deadline, said

    def stop(self) -> None:
        """Stop the server, whatever is connected."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(_DEADLINE_SECONDS)
            finally:
                self._process.kill()
            self._process = None

    def freeze(self, frozen: bool) -> None:
        """Let every process of the server hold still, or go on."""
        assert self._process is not None
        for pid in [self._process.pid, *self._children(self._process.pid)]:
            os.kill(pid, signal.SIGSTOP if frozen else signal.SIGCONT)

    async def make_database(self) -> str:
        """A new database: its name."""
        self._made += 1
        name = f"test_{self._made}"
        await self.execute(f"CREATE DATABASE {name}")
        return name

    async def execute(self, statement: str, database: str = "postgres") -> Any:
        """Run a statement; the first value that comes back."""
        connection = await asyncpg.connect(
            host="127.0.0.1", port=self.port, user="olla", database=database
        )
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    def remove(self) -> None:
        """Stop the server, and remove its folder."""
        self.stop()
        shutil.rmtree(self._folder)

    @staticmethod
    def _children(pid: int) -> list[int]:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _known(account: str) -> bool:
    try:
        pwd.getpwnam(account)
    except KeyError:
        return False
    return True
