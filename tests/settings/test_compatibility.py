"""Files of the Go router run unchanged, and keys without effect are reported."""

from collections.abc import Callable

import pytest

from olla.settings import Problem, parse
from olla.settings.compatibility import FOREIGN, NOT_YET
from olla.settings.schema_walk import keys_below

Problems = Callable[..., list[Problem]]

EVERY_KEY = """\
server:
  host: localhost
  port: 40114
  read_timeout: 30s
  read_header_timeout: 10s
  write_timeout: 0s
  idle_timeout: 0s
  shutdown_timeout: 10s
  request_logging: true
  cors: {enabled: false, allowed_origins: ["*"], allow_credentials: false, max_age: 300}
  request_limits: {max_body_size: 104857600, max_header_size: 1048576}
  rate_limits:
    global_requests_per_minute: 1000
    per_ip_requests_per_minute: 100
    burst_size: 50
    cleanup_interval: 5m
    trusted_proxy_cidrs: ["127.0.0.0/8"]
proxy:
  engine: olla
  profile: auto
  load_balancer: least-connections
  connection_timeout: 60s
  connection_keep_alive: 30s
  response_header_timeout: 30s
  tls_handshake_timeout: 10s
  read_timeout: 10m
  response_timeout: 15m
  stream_buffer_size: 0
  profile_filter: {include: [], exclude: []}
  retry: {enabled: true, on_connection_failure: true, max_attempts: 0}
  max_retries: 3
  retry_backoff: 500ms
  sticky_sessions: {enabled: false, idle_ttl_seconds: 600, key_sources: [session_header]}
discovery:
  type: static
  refresh_interval: 30s
  health_check: {initial_delay: 1s}
  model_discovery:
    enabled: true
    interval: 5m
    timeout: 30s
    concurrent_workers: 5
    retry_attempts: 3
    retry_backoff: 1s
  static:
    endpoints:
      - url: http://gpu-1:11434
        name: gpu-1
        type: ollama
        priority: 100
        health_check_url: /
        model_url: /api/tags
        check_interval: 5s
        check_timeout: 2s
        preserve_path: false
        model_filter: {include: ["llama*"], exclude: ["*test*"]}
        auth: {type: basic, username: u, password: p}
        headers: {X-Team: a}
      - {url: "http://gpu-2:8000/inner", type: openai, preserve_path: false}
      - {url: "http://gpu-3:8000/inner", type: vllm, preserve_path: true}
model_registry:
  type: memory
  enable_unifier: true
  unification: {enabled: true, stale_threshold: 24h, cleanup_interval: 10m}
  routing_strategy:
    type: strict
    options:
      fallback_behavior: compatible_only
      discovery_timeout: 2s
      discovery_refresh_on_miss: false
model_aliases: {chat: [llama3.2, "mistral:7b"]}
translators:
  anthropic: {enabled: true, passthrough_enabled: true, inspector: {enabled: false}}
dashboard: {enabled: true, access_policy: {allowed_hosts: [localhost]}}
logging: {level: info, format: json, output: file}
engineering: {show_nerdstats: false}
"""


def test_a_file_with_every_key_of_the_go_router_runs() -> None:
    """Supported keys take effect."""
    settings = parse(EVERY_KEY, {}).settings
    first, second, _ = settings.discovery.static.endpoints
    assert settings.proxy.load_balancer == "least-connections"
    assert settings.proxy.response_timeout == 900
    assert settings.discovery.model_discovery.interval == 300
    assert settings.model_aliases == {"chat": ("llama3.2", "mistral:7b")}
    assert (first.name, first.model_filter.exclude) == ("gpu-1", ("*test*",))
    assert second.type == "openai-compatible"


def test_each_key_without_effect_is_reported_once() -> None:
    """No key is dropped silently: every foreign key of the file has a notice with its line."""
    notices = parse(EVERY_KEY, {}, "go.yaml").notices
    lines = EVERY_KEY.splitlines()
    for notice in notices:
        name = notice.key.rpartition(".")[2]
        assert name in lines[notice.line - 1]
    keys = [notice.key for notice in notices]
    assert len(set(keys)) == len(keys)
    in_file = {key for key in FOREIGN if key.rpartition(".")[2] in EVERY_KEY} - {"profiles"}
    others = {
        "proxy.response_timeout",
        "logging.output",
        "discovery.static.endpoints[1].preserve_path",
    }
    assert set(keys) == in_file | others


def test_rate_limits_of_the_go_router_apply() -> None:
    """Operators rely on them."""
    limits = parse(EVERY_KEY, {}).settings.server.rate_limits
    assert limits.global_requests_per_minute == 1000
    assert (limits.per_ip_requests_per_minute, limits.burst_size) == (100, 50)


def test_response_timeout_of_a_go_router_file_is_reported() -> None:
    """It had no effect there and aborts responses here. Without keys of the Go router in the file
    it is an ordinary setting."""
    notices = parse("proxy: {engine: olla, response_timeout: 15m}", {}).notices
    assert "is aborted after 900 s" in notices[1].message
    assert parse("proxy: {response_timeout: 15m}", {}).notices == []
    assert len(parse("proxy: {engine: olla, response_timeout: 0s}", {}).notices) == 1


@pytest.mark.parametrize(
    ("endpoint", "key", "message"),
    [
        ("{url: 'http://a/x', preserve_path: false}", ".preserve_path", "/x is prepended"),
        ("{url: 'http://a:8000/v1'}", ".url", "/v1 is prepended"),
        ("{url: 'http://a:8000/api/', preserve_path: true}", ".url", "/api is prepended"),
    ],
)
def test_a_url_path_with_an_unexpected_effect_is_reported(
    endpoint: str, key: str, message: str, endpoints: Callable[..., str]
) -> None:
    """The path of the URL is always prepended to the path of a request."""
    (notice,) = parse(endpoints(endpoint), {}).notices
    assert notice.key == f"discovery.static.endpoints[0]{key}"
    assert message in notice.message


@pytest.mark.parametrize(
    "endpoint",
    [
        "{url: 'http://a', preserve_path: false}",
        "{url: 'http://a/x', preserve_path: true}",
        "{url: 'http://a/x'}",
    ],
)
def test_a_url_with_the_same_meaning_here_is_not_reported(
    endpoint: str, endpoints: Callable[..., str]
) -> None:
    """Nothing is reported if the behavior is the same."""
    assert parse(endpoints(endpoint), {}).notices == []


@pytest.mark.parametrize("path", sorted(NOT_YET))
def test_an_unsupported_section_is_a_problem(path: str, problems: Problems) -> None:
    """A file that asks for keys or limits must not run without them."""
    parent, _, name = path.rpartition(".")
    text = f"{name}: {{enabled: true}}"
    (problem,) = problems(f"{parent}: {{{text}}}" if parent else text)
    assert problem.key == path
    assert problem.message.startswith("this version does not support ")


def test_an_empty_section_is_not_reported() -> None:
    """All of its keys are commented out."""
    assert parse("access:\n", {}).notices == []


def test_no_key_is_both_known_and_foreign() -> None:
    """A key that becomes supported must be removed from the tables."""
    for path in (*FOREIGN, *NOT_YET):
        *parent, name = path.split(".")
        assert name not in keys_below(tuple(parent))
        assert not parent or keys_below(tuple(parent))
