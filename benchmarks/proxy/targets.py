"""The compared targets: olla on both request paths, and other proxies in front of the same backend.

Others run as their documentation starts them: one worker, their defaults, and no access log if it
can be turned off. A target that cannot be installed is left out with a notice.
"""

import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

from benchmarks.proxy.processes import PROXY_CORE, Measured, free_port, start

__all__ = ["DIRECT", "TARGETS", "Target", "olla_config", "peer"]

_NATIVE = "/api/generate"
_OPENAI = "/v1/chat/completions"


class Target:
    """A proxy to measure. `path` is the request path it serves; `heavy` targets get shorter
    measurements and fewer streams."""

    def __init__(
        self,
        name: str,
        begin: Callable[[int, Path], Measured],
        *,
        path: str = _NATIVE,
        package: str | None = None,
        heavy: bool = False,
    ) -> None:
        self.name = name
        self.begin = begin
        self.path = path
        self.package = package
        self.heavy = heavy


DIRECT = "direct"
"""Requests to the backend without a proxy."""

_OLLA = """\
server: {{host: 127.0.0.1, port: {port}, fast_path: {fast_path}}}
access: {{anonymous_operations: [generate, embed, list, manage]}}
discovery:
  static:
    endpoints:
{endpoints}
"""
_ENDPOINT = (
    '      - {{url: "http://127.0.0.{host}:{port}", name: node-{number}, type: ollama, '
    "num_parallel: 10000}}"
)


def olla_config(port: int, backend: int, *, fast_path: str = "auto", endpoints: int = 1) -> str:
    """Return a configuration with `endpoints` endpoints, all the same backend at different
    addresses."""
    lines = [
        _ENDPOINT.format(host=1 + number % 250, port=backend, number=number)
        if number < 250
        else _ENDPOINT.replace("127.0.0.", "127.0.1.").format(
            host=1 + number % 250, port=backend, number=number
        )
        for number in range(endpoints)
    ]
    return _OLLA.format(port=port, fast_path=fast_path, endpoints="\n".join(lines))


COMPILED = Path("build/compiled")
"""The output of `make compiled`: what pip installs if a C compiler is installed."""


def start_olla(
    backend: int,
    folder: Path,
    *,
    fast_path: str = "auto",
    endpoints: int = 1,
    compiled: bool = True,
) -> Measured:
    """Start the router as shipped: default policy, metrics, request log."""
    port = free_port()
    config = folder / f"olla-{port}.yaml"
    config.write_text(olla_config(port, backend, fast_path=fast_path, endpoints=endpoints))
    where = COMPILED.absolute() if compiled else Path.cwd()
    return start(
        [sys.executable, "-P", "-m", "olla", "serve", "--config", str(config)],
        port,
        folder / f"olla-{port}.log",
        core=PROXY_CORE,
        environment={"PYTHONPATH": str(where), "OLLA_HOME": str(folder)},
    )


_NGINX = """\
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log;
events {{ worker_connections 20000; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  client_body_buffer_size 8m;
  client_max_body_size 100m;
  keepalive_requests 1000000000;
  upstream backend {{
    server 127.0.0.1:{backend};
    keepalive 256;
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://backend;
      proxy_http_version 1.1;
      proxy_buffering off;
      proxy_read_timeout 600s;
      proxy_set_header Connection "";
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Request-ID $request_id;
      add_header X-Olla-Request-ID $request_id;
      add_header X-Olla-Endpoint bench;
      add_header X-Olla-Model bench;
      add_header X-Olla-Backend-Type ollama;
      add_header X-Olla-Routing-Strategy none;
      add_header X-Olla-Response-Time $upstream_header_time;
    }}
  }}
}}
"""


def _nginx(backend: int, folder: Path) -> Measured:
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin")
    if program is None:
        raise FileNotFoundError("apt install nginx-light")
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, backend=backend, port=port))
    command = [program, "-c", str(config), "-e", str(folder / "nginx-error.log")]
    return start(command, port, folder / "nginx.log", core=PROXY_CORE)


def _plain(backend: int, folder: Path) -> Measured:
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.proxy.plain", str(port)]
    command.append(f"http://127.0.0.1:{backend}")
    return start(command, port, folder / "plain.log", core=PROXY_CORE)


PEERS = Path(".bench")
"""Folder of the other programs, each in its own environment."""


def peer(package: str) -> Path:
    """Return the folder of a package's commands, after installing it if necessary.

    Raises:
        FileNotFoundError: it cannot be installed here.
    """
    folder = PEERS / package.partition("[")[0]
    commands = folder.absolute() / "bin"
    if not (folder / "installed").exists():
        print(f"installing {package} into {folder} (minutes)", file=sys.stderr, flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        done = subprocess.run(
            [commands / "python", "-m", "pip", "install", "--quiet", package],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise FileNotFoundError((done.stderr.strip().splitlines() or ["pip failed"])[-1])
        (folder / "installed").touch()
    return commands


def _litellm(backend: int, folder: Path) -> Measured:
    commands, port = peer("litellm[proxy]"), free_port()
    config = folder / "litellm.yaml"
    config.write_text(
        "model_list:\n  - model_name: bench\n    litellm_params: {model: openai/bench, "
        f"api_base: 'http://127.0.0.1:{backend}/v1', api_key: none}}\n"
        "litellm_settings: {telemetry: false}\n"
    )
    command = [str(commands / "litellm"), "--config", str(config), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--num_workers", "1"]
    return start(
        command,
        port,
        folder / "litellm.log",
        core=PROXY_CORE,
        environment={
            "PATH": f"{commands}:/usr/bin:/bin",
            "PYTHONPATH": "",
            "LITELLM_LOG": "ERROR",
            # Without a key it authenticates no requests, like the other targets.
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        },
        patience=120.0,
    )


def _sglang(backend: int, folder: Path) -> Measured:
    commands, port = peer("sglang-router"), free_port()
    command = [str(commands / "sglang-router"), "launch", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--worker-urls", f"http://127.0.0.1:{backend}"]
    command += ["--policy", "round_robin", "--log-level", "error"]
    command += ["--prometheus-port", str(free_port())]
    return start(
        command,
        port,
        folder / "sglang.log",
        core=PROXY_CORE,
        environment={"TOKIO_WORKER_THREADS": "1"},
    )


TARGETS = (
    Target("nginx", _nginx),
    Target("olla", start_olla),
    Target(
        "olla, fast_path: off",
        lambda backend, folder: start_olla(backend, folder, fast_path="off"),
    ),
    Target(
        "olla, not compiled",
        lambda backend, folder: start_olla(backend, folder, compiled=False),
    ),
    Target("aiohttp, server and client", _plain),
    Target("sglang-router", _sglang, path=_OPENAI, package="sglang-router"),
    Target("LiteLLM", _litellm, path=_OPENAI, package="litellm[proxy]", heavy=True),
)
