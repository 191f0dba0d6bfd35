"""A file with every documented key of the Go router loads with notices only."""

from olla.settings import parse
from olla.settings.compatibility import FOREIGN

FILE = """\
server:
  host: 127.0.0.1
  port: 40115
  read_timeout: 20s
  read_header_timeout: 10s
  write_timeout: 0s
  idle_timeout: 2m
  shutdown_timeout: 15s
  request_logging: true
  cors:
    enabled: true
    allowed_origins: ["https://chat.example"]
    allowed_methods: [GET, POST]
    allowed_headers: ["*"]
    exposed_headers: []
    allow_credentials: false
    max_age: 300
  request_limits: {max_body_size: 52428800, max_header_size: 524288}
  rate_limits:
    global_requests_per_minute: 600
    per_ip_requests_per_minute: 60
    health_requests_per_minute: 600
    burst_size: 20
    per_endpoint: {}
    cleanup_interval: 5m
    trust_proxy_headers: false
    trusted_proxy_cidrs: ["10.0.0.0/8"]
proxy:
  engine: sherpa
  profile: auto
  load_balancer: priority
  connection_timeout: 20s
  connection_keep_alive: 30s
  response_header_timeout: 30s
  tls_handshake_timeout: 10s
  read_timeout: 5m
  response_timeout: 15m
  stream_buffer_size: 0
  profile_filter: {include: [], exclude: []}
  retry: {enabled: true, on_connection_failure: true, max_attempts: 2}
  max_retries: 3
  retry_backoff: 500ms
  sticky_sessions:
    enabled: true
    idle_ttl_seconds: 600
    max_sessions: 10000
    key_sources: [session_header, prefix_hash, auth_header]
    prefix_hash_bytes: 512
discovery:
  type: static
  refresh_interval: 30s
  health_check: {initial_delay: 1s}
  model_discovery:
    enabled: true
    interval: 4m
    timeout: 30s
    concurrent_workers: 5
    retry_attempts: 3
    retry_backoff: 1s
  static:
    endpoints:
      - url: http://gpu-1:11434
        name: first
        type: ollama
        priority: 90
        health_check_url: /
        model_url: /api/tags
        check_interval: 4s
        check_timeout: 1s
        preserve_path: false
        model_filter: {include: [], exclude: ["*embed*"]}
        auth: {type: bearer, token: hush-token}
        headers: {X-Team: hush-team}
model_registry:
  type: memory
  enable_unifier: true
  unification: {stale_threshold: 24h, cleanup_interval: 10m}
  routing_strategy:
    type: strict
    options:
      fallback_behavior: compatible_only
      discovery_timeout: 2s
      discovery_refresh_on_miss: false
model_aliases: {chat: [llama3.2, mistral]}
translators:
  anthropic:
    enabled: true
    passthrough_enabled: true
    max_message_size: 10485760
    inspector: {enabled: false, output_dir: logs, session_header: X-Session-ID}
dashboard:
  enabled: true
  access_policy: {allowed_cidrs: ["127.0.0.0/8", "::1/128"], allowed_hosts: [localhost]}
  gate_internal_api: false
logging: {level: warn, format: text, output: stderr}
engineering: {show_nerdstats: false}
"""


def test_every_documented_key_is_used_or_reported() -> None:
    """The file has no problems, and the keys in use have its values."""
    settings = parse(FILE, {}, "olla.yaml").settings
    (endpoint,) = settings.discovery.static.endpoints
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 40115)
    assert settings.server.idle_timeout == 120
    assert settings.server.request_limits.max_body_size == 50 * 1024**2
    assert settings.proxy.load_balancer == "priority"
    assert settings.proxy.read_timeout == 300
    assert settings.discovery.model_discovery.interval == 240
    assert (endpoint.name, endpoint.priority, endpoint.check_interval) == ("first", 90, 4)
    assert (settings.logging.level, settings.logging.output) == ("warning", "stderr")


def test_each_key_without_effect_is_reported_once_at_its_line() -> None:
    """Every notice points to the line of its key."""
    notices = parse(FILE, {}, "olla.yaml").notices
    lines = FILE.splitlines()
    keys = [each.key for each in notices]
    assert len(keys) == len(set(keys))
    assert [each.line for each in notices] == sorted(each.line for each in notices)
    for each in notices:
        assert lines[each.line - 1].lstrip().startswith(each.key.rpartition(".")[2] + ":")
    undocumented = {
        "profiles",
        "proxy.max_idle_conns",
        "proxy.max_conns_per_host",
        "proxy.idle_conn_timeout",
    }
    changed_effect = {"proxy.response_timeout"}
    assert set(keys) == set(FOREIGN) - undocumented | changed_effect
    assert "hush" not in "".join(map(str, notices))
