"""Build the source distribution and the wheel, and test each like a user.

Each is installed into a clean environment, where the demo must start, answer a chat request and
exit with 0 on SIGTERM. The source distribution is installed uncompiled (OLLA_COMPILE=0), as on a
machine without a compiler; the wheel is compiled.

    python packaging/try_dist.py [--keep FOLDER]
"""

import argparse
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 30.0


def say(text: str) -> None:
    """Print progress immediately, even into a pipe."""
    print(text, flush=True)


def build(folder: Path) -> tuple[Path, Path]:
    """Build both into `folder`, the wheel from the source distribution; return their paths."""
    shutil.rmtree(folder, ignore_errors=True)
    say("building the source distribution, and the wheel from it (about a minute)")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    (source,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return source, wheel


def install(distribution: Path, place: Path, *, compiled: bool) -> Path:
    """Install a distribution into a new environment; return the path of its `olla`."""
    say(f"installing {distribution.name} into a clean environment")
    venv.create(place, with_pip=True)
    environment = {**os.environ, "OLLA_COMPILE": "1" if compiled else "0"}
    environment.pop("PYTHONPATH", None)
    python = place / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", distribution],
        check=True,
        cwd=place,
        env=environment,
    )
    found = subprocess.run(
        [python, "-c", "import olla.proxy.exchange.exchange as module; print(module.__file__)"],
        check=True,
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
    ).stdout.strip()
    if compiled is found.endswith(".py"):
        expected = "a compiled module" if compiled else "an uncompiled module"
        raise SystemExit(f"{distribution.name}: expected {expected}, but {found} was imported")
    return place / "bin" / "olla"


@contextmanager
def demo(olla: Path, home: Path) -> Iterator[int]:
    """Run the demo of an installation on a free port, and yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    environment = {**os.environ, "OLLA_HOME": str(home)}
    environment.pop("PYTHONPATH", None)
    running = subprocess.Popen(
        [olla, "demo", "--port", str(port)], cwd=home, env=environment, stdout=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + START_SECONDS_MAX
        while not ready(port):
            if running.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("the demo did not become ready")
            time.sleep(0.2)
        yield port
        running.send_signal(signal.SIGTERM)
        if running.wait(STOP_SECONDS_MAX):
            raise SystemExit(f"the demo exited with status {running.returncode}")
    finally:
        if running.poll() is None:
            running.kill()
            running.wait()


def ready(port: int) -> bool:
    """Return whether the router on a port is ready."""
    try:
        return ask(port, "GET", "/internal/ready")[0] == 200
    except OSError:
        return False


def ask(port: int, method: str, path: str, body: object = None) -> tuple[int, bytes]:
    """Send a request to the router; return status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, None if body is None else json.dumps(body))
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def try_out(distribution: Path, folder: Path, *, compiled: bool) -> None:
    """Install a distribution, and check that its demo answers a chat request."""
    olla = install(distribution, folder / "environment", compiled=compiled)
    home = folder / "home"
    home.mkdir()
    message = {"role": "user", "content": "Hello!"}
    body = {"model": "llama3.2", "stream": False, "messages": [message]}
    with demo(olla, home) as port:
        status, answer = ask(port, "POST", "/api/chat", body)
        if status != 200 or not json.loads(answer)["done"]:
            raise SystemExit(f"{distribution.name}: the demo returned {status}: {answer[:300]!r}")
        status, _ = ask(port, "GET", "/admin/playground")
        if status != 200:
            raise SystemExit(f"{distribution.name}: the playground is missing ({status})")
    say(f"{distribution.name}: the demo works")


def main() -> None:
    """Build both distributions, and test each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--keep", type=Path, default=ROOT / "dist", help="folder for the distributions"
    )
    folder = parser.parse_args().keep
    source, wheel = build(folder)
    for distribution, compiled in ((source, False), (wheel, True)):
        with tempfile.TemporaryDirectory(prefix="olla-dist-") as place:
            try_out(distribution, Path(place), compiled=compiled)


if __name__ == "__main__":
    main()
