"""Run real reverse proxies in front of a router: nginx, HAProxy and Caddy from Debian."""

import asyncio
import os
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

__all__ = ["PROXIES", "Proxy", "documented", "free_port_now", "started"]

ROOT = Path(__file__).parents[2]
_SECONDS = 15.0
_PACKAGES = {"nginx": "nginx-light", "haproxy": "haproxy", "caddy": "caddy"}
_NGINX = """
daemon off;
worker_processes 1;
error_log {folder}/error.log;
pid {folder}/nginx.pid;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  {inside}
}}
"""
_CADDY = "{{\n\tadmin off\n\tauto_https off\n}}\n{inside}\n"
_HAPROXY = "global\n    maxconn 256\n{inside}\n"


class Proxy:
    """A running proxy: its URL, and whether it terminates TLS with its own certificate."""

    def __init__(self, name: str, port: int, *, tls: bool, preserves_breaks: bool) -> None:
        self.name = name
        self.port = port
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        self.preserves_breaks = preserves_breaks
        """Whether a response that breaks behind the proxy also breaks for its client."""


def free_port_now() -> int:
    """Return a local port on which no server listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def documented(name: str) -> str:
    """Return a block of docs/security.md."""
    text = (ROOT / "docs" / "security.md").read_text()
    found = re.search(rf"<!-- block: {name} -->\n```\w*\n(.*?)```", text, re.DOTALL)
    assert found is not None, name
    return found[1]


def _replaced(text: str, *pairs: tuple[str, str]) -> str:
    """Replace all pairs in the text; each must occur in it."""
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return text


def certificate(folder: Path) -> Path:
    """Create a certificate and key for this machine, in one file."""
    path = folder / "both.pem"
    if not path.exists():
        key, cert = folder / "key.pem", folder / "cert.pem"
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
                *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
                *("-keyout", str(key), "-out", str(cert)),
            ],
            check=True,
            capture_output=True,
        )
        path.write_text(cert.read_text() + key.read_text())
    return path


def _nginx(inside: Callable[[int, int, Path], str]) -> Callable[[int, int, Path], list[str]]:
    def command(port: int, router: int, folder: Path) -> list[str]:
        path = folder / "nginx.conf"
        path.write_text(_NGINX.format(folder=folder, inside=inside(port, router, folder)))
        return ["nginx", "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(path)]

    return command


def _haproxy(inside: Callable[[int, int, Path], str]) -> Callable[[int, int, Path], list[str]]:
    def command(port: int, router: int, folder: Path) -> list[str]:
        path = folder / "haproxy.cfg"
        path.write_text(_HAPROXY.format(inside=inside(port, router, folder)))
        return ["haproxy", "-db", "-f", str(path)]

    return command


def _caddy(inside: Callable[[int, int, Path], str]) -> Callable[[int, int, Path], list[str]]:
    def command(port: int, router: int, folder: Path) -> list[str]:
        path = folder / "Caddyfile"
        path.write_text(_CADDY.format(inside=inside(port, router, folder)))
        return ["caddy", "run", "--config", str(path), "--adapter", "caddyfile"]

    return command


def _nginx_location(*lines: str) -> Callable[[int, int, Path], str]:
    def inside(port: int, router: int, folder: Path) -> str:
        within = " ".join(lines).format(router=router)
        return f"server {{ listen 127.0.0.1:{port}; location / {{ {within} }} }}"

    return inside


def _nginx_documented(port: int, router: int, folder: Path) -> str:
    both = certificate(folder)
    return _replaced(
        documented("nginx"),
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("/etc/ssl/llm.example.com.pem", str(both)),
        ("/etc/ssl/llm.example.com.key", str(both)),
        ("127.0.0.1:40114", f"127.0.0.1:{router}"),
    )


def _haproxy_documented(port: int, router: int, folder: Path) -> str:
    return _replaced(
        documented("haproxy"),
        ("bind :443", f"bind 127.0.0.1:{port}"),
        ("/etc/ssl/llm.example.com.pem", str(certificate(folder))),
        ("127.0.0.1:40114", f"127.0.0.1:{router}"),
    )


def _haproxy_plain(mode: str) -> Callable[[int, int, Path], str]:
    def inside(port: int, router: int, folder: Path) -> str:
        return (
            f"defaults\n    mode {mode}\n    timeout connect 5s\n    timeout client 60s\n"
            f"    timeout server 60s\nlisten llm\n    bind 127.0.0.1:{port}\n"
            f"    server olla 127.0.0.1:{router}"
        )

    return inside


def _caddy_documented(port: int, router: int, folder: Path) -> str:
    return _replaced(
        documented("caddy"),
        ("llm.example.com {", f"http://:{port} {{\n\tbind 127.0.0.1"),
        ("127.0.0.1:40114", f"127.0.0.1:{router}"),
    )


def _caddy_plain(port: int, router: int, folder: Path) -> str:
    return f"http://:{port} {{\n\tbind 127.0.0.1\n\treverse_proxy 127.0.0.1:{router}\n}}"


_PASS = "proxy_pass http://127.0.0.1:{router};"
_KINDS: dict[str, tuple[Callable[[int, int, Path], list[str]], bool, bool]] = {
    "nginx, proxy_pass alone": (_nginx(_nginx_location(_PASS)), False, True),
    "nginx, as Ollama advises": (
        _nginx(
            _nginx_location(
                "proxy_pass http://localhost:{router};",
                "proxy_set_header Host localhost:{router};",
            )
        ),
        False,
        True,
    ),
    "nginx, keep-alive": (
        _nginx(
            _nginx_location(_PASS, "proxy_http_version 1.1;", 'proxy_set_header Connection "";')
        ),
        False,
        True,
    ),
    "nginx, as documented": (_nginx(_nginx_documented), True, True),
    "haproxy, http": (_haproxy(_haproxy_plain("http")), False, True),
    "haproxy, tcp": (_haproxy(_haproxy_plain("tcp")), False, True),
    "haproxy, as documented": (_haproxy(_haproxy_documented), True, True),
    "caddy, reverse_proxy alone": (_caddy(_caddy_plain), False, False),
    "caddy, as documented": (_caddy(_caddy_documented), False, False),
}
"""For each kind its command, whether it terminates TLS, and whether a broken response stays broken
(Caddy 2.6 ends it cleanly)."""
PROXIES = tuple(_KINDS)


@asynccontextmanager
async def started(kind: str, router: int, folder: Path) -> AsyncIterator[Proxy]:
    """Run a proxy of a kind in front of the router. If it is not installed the test is skipped; it
    fails if OLLA_TEST_REQUIRE names the proxy."""
    name = kind.partition(",")[0]
    binary = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if binary is None:
        message = f"needs {name}: apt install {_PACKAGES[name]}"
        if name in os.environ.get("OLLA_TEST_REQUIRE", ""):
            pytest.fail(message)
        pytest.skip(message)
    make, tls, preserves_breaks = _KINDS[kind]
    port = free_port_now()
    _, *arguments = make(port, router, folder)
    log = (folder / "log").open("wb")
    process = subprocess.Popen(
        [binary, *arguments],
        cwd=folder,
        env={**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
    )
    try:
        await _listens(process, port, folder)
        yield Proxy(kind, port, tls=tls, preserves_breaks=preserves_breaks)
    finally:
        process.terminate()
        try:
            process.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_SECONDS)
        log.close()


async def _listens(process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
    async with asyncio.timeout(_SECONDS):
        while True:
            assert process.poll() is None, (folder / "log").read_text()
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.02)
