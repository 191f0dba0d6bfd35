"""Loading a configuration: file lookup, and every problem at once with its position."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from olla.settings import Problem, SettingsError, load, parse
from olla.settings.schema_walk import all_paths

Problems = Callable[..., list[Problem]]


@pytest.mark.parametrize(
    ("text", "place", "key", "message"),
    [
        ("server: {prot: 1}", "1:10", "server.prot", "unknown key; did you mean port?"),
        (
            "proxy:\n  load_balancr: x",
            "2:3",
            "proxy.load_balancr",
            "unknown key; did you mean load_balancer?",
        ),
        ("severs: {}", "1:1", "severs", "unknown key; did you mean server?"),
        ("port: 1", "1:1", "port", "unknown key; it belongs at server.port"),
        (
            "discovery: {endpoints: []}",
            "1:13",
            "discovery.endpoints",
            "unknown key; it belongs at discovery.static.endpoints",
        ),
        ("proxy: {retri: 3}", "1:9", "proxy.retri", "unknown key; did you mean retry?"),
        (
            "zzzzzz: 1",
            "1:1",
            "zzzzzz",
            "unknown key; known keys: access, discovery, logging, model_aliases,",
        ),
        ("server: {port: http}", "1:10", "server.port", "'http' is not a whole number"),
        (
            "server: {port: 70000}",
            "1:10",
            "server.port",
            "'70000' is too large; it must be at most 65535",
        ),
        ("server: {port: [1]}", "1:10", "server.port", "['1'] is not a whole number"),
        (
            "server: {host: ''}",
            "1:10",
            "server.host",
            "'' is not a valid host; write localhost, 0.0.0.0 for all, or a name",
        ),
        ("server: 5", "1:1", "server", "this must be a mapping with keys such as host, port,"),
        ("server: [a]", "1:1", "server", "this must be a mapping with keys such as host, port,"),
        (
            "server: {shutdown_timeout: soon}",
            "1:10",
            "server.shutdown_timeout",
            "'soon' is not a valid duration; write e.g. 300ms, 5s, 10m or 1h30m",
        ),
        (
            "server: {request_limits: {max_body_size: huge}}",
            "1:27",
            "server.request_limits.max_body_size",
            "'huge' is not a valid size; write bytes, 64KB, 100MB or 1GB",
        ),
        (
            "server: {request_limits: {max_body_size: 0}}",
            "1:27",
            "server.request_limits.max_body_size",
            "'0' is too small; it must be at least 1",
        ),
        (
            "proxy: {load_balancer: leastconnections}",
            "1:9",
            "proxy.load_balancer",
            "did you mean least-connections?",
        ),
        (
            "proxy: {connection_timeout: 0s}",
            "1:9",
            "proxy.connection_timeout",
            "'0s' is too small; it must be more than 0 s",
        ),
        (
            "logging: {format: jsn}",
            "1:11",
            "logging.format",
            "'jsn' is not one of json, text; did you mean json?",
        ),
        (
            "logging: {level: {}}",
            "1:11",
            "logging.level",
            "{} is not one of debug, info, warning, error",
        ),
        (
            "surfaces: {root: {enabled: maybe}}",
            "1:19",
            "surfaces.root.enabled",
            "'maybe' is neither true nor false",
        ),
        (
            "model_aliases: {chat: llama3.2}",
            "1:17",
            "model_aliases.chat",
            "this must be a list; write [llama3.2]",
        ),
        (
            "model_aliases: {chat: []}",
            "1:17",
            "model_aliases.chat",
            "an alias needs at least one model",
        ),
        (
            "model_aliases: {chat: }",
            "1:17",
            "model_aliases.chat",
            "this must be a list; write each item as '- …' on its own line",
        ),
        ("model_aliases: [a]", "1:1", "model_aliases", "this must be a mapping of names to values"),
        (
            "model_aliases: {chat: [[a]]}",
            "1:24",
            "model_aliases.chat[0]",
            "this must be a string, not a list or a mapping",
        ),
        (
            "model_registry: {routing_strategy: {type: lax}}",
            "1:37",
            "model_registry.routing_strategy.type",
            "'lax' is not one of strict, optimistic, discovery",
        ),
        ("discovery: {type: dns}", "1:13", "discovery.type", "'dns' is not one of static"),
        (
            "discovery: {static: {endpoints: []}}",
            "1:22",
            "discovery.static.endpoints",
            "list at least one endpoint, or omit the key for the default",
        ),
        (
            "discovery: {static: {endpoints: {url: x}}}",
            "1:22",
            "discovery.static.endpoints",
            "this must be a list; write each item as '- …' on its own line",
        ),
        (
            "discovery: {model_discovery: {interval: 10ms}}",
            "1:31",
            "discovery.model_discovery.interval",
            "'10ms' is too small; it must be at least 1 s",
        ),
    ],
)
def test_a_problem_says_where_and_what_to_do(
    text: str, place: str, key: str, message: str, problems: Problems
) -> None:
    """File, line, column, key, and a sentence that says what to do."""
    (problem,) = problems(text)
    assert str(problem).startswith(f"olla.yaml:{place}: {key}: ")
    assert message in problem.message


def test_every_problem_is_reported_at_once_in_file_order(problems: Problems) -> None:
    """Typos, wrong types, duplicates, unset variables and unreadable files are reported
    together."""
    text = """\
server:
  prot: 40114
  port: many
proxy: {read_timeout: later}
discovery:
  static:
    endpoints:
      - {url: "http://a:1", name: gpu}
      - {url: "http://A:1/", name: gpu, typ: ollama}
      - {url: "${NOWHERE}", auth: {type: bearer, token_file: /no/such/file}}
      - url: "http://b"
        url: "http://c"
model_aliases: {Chat: [a], "chat:latest": [b]}
telemetry: {otlp: x}
"""
    found = problems(text, {"OLLA_LOGGING_LEVEL": "loud"})
    assert [(each.line, each.key) for each in found] == [
        (0, "OLLA_LOGGING_LEVEL"),
        (2, "server.prot"),
        (3, "server.port"),
        (4, "proxy.read_timeout"),
        (9, "discovery.static.endpoints[1].url"),
        (9, "discovery.static.endpoints[1].name"),
        (9, "discovery.static.endpoints[1].typ"),
        (10, "discovery.static.endpoints[2].url"),
        (10, "discovery.static.endpoints[2].url"),
        (10, "discovery.static.endpoints[2].auth.token_file"),
        (12, "discovery.static.endpoints[3].url"),
        (13, "model_aliases.chat:latest"),
        (14, "telemetry"),
    ]


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change into a directory without any configuration."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    return tmp_path


def test_the_first_existing_file_is_loaded(empty_folder: Path) -> None:
    """The order is: the named file, OLLA_CONFIG_FILE, the default paths, the built-in defaults."""
    assert load(None, {}).source == "built-in defaults"
    for name in ("olla.yaml", "config/olla.yaml", "config/olla.local.yaml"):
        (empty_folder / name).write_text("")
        assert load(None, {}).source == name
    (empty_folder / "other.yaml").write_text("")
    assert load(None, {"OLLA_CONFIG_FILE": "other.yaml"}).source == "other.yaml"
    assert load(Path("olla.yaml"), {"OLLA_CONFIG_FILE": "other.yaml"}).source == "olla.yaml"


def test_an_unreadable_file_is_reported_with_the_reason(empty_folder: Path) -> None:
    """Missing, a directory, not text, or too long: one problem each, without a line."""
    (empty_folder / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    (empty_folder / "long.yaml").write_text("#" * (4 * 1024 * 1024 + 1))
    for name, message in (
        ("nowhere.yaml", "file not found"),
        ("config", "Is a directory"),
        ("bytes.yaml", "the file is not UTF-8 text"),
        ("long.yaml", "the file is longer than"),
    ):
        with pytest.raises(SettingsError, match=message) as caught:
            load(Path(name), {})
        assert str(caught.value).startswith(f"{name}: ")
    with pytest.raises(SettingsError, match=r"nowhere.yaml: .*from OLLA_CONFIG_FILE"):
        load(None, {"OLLA_CONFIG_FILE": "nowhere.yaml"})


def test_a_file_with_a_byte_order_mark_is_loaded(empty_folder: Path) -> None:
    """Editors on Windows write one."""
    (empty_folder / "bom.yaml").write_text("server: {port: 1}", encoding="utf-8-sig")
    assert load(Path("bom.yaml"), {}).settings.server.port == 1


NAMES = sorted({part for path in all_paths() for part in path.replace("[]", "").split(".")})
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.sampled_from(["5s", "100MB", "http://a", "http://[", "${", "${X}", "bearer", "auto", "*"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)


def found_in(text: str) -> list[Problem]:
    """Return the problems of a text; empty if it is valid."""
    try:
        parse(text, {}, "olla.yaml")
    except SettingsError as error:
        return error.problems
    return []


@given(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4), st.lists(VALUES, max_size=3))
def test_arbitrary_data_raises_only_settings_errors(
    data: dict[str, object], endpoints: list[object]
) -> None:
    """Any value at any key gives settings, or problems of one line each."""
    discovery = {"static": {"endpoints": endpoints}}
    for text in (yaml.safe_dump(data), yaml.safe_dump({**data, "discovery": discovery})):
        for problem in found_in(text):
            assert problem.message
            assert str(problem).isprintable()


@given(st.text(max_size=60))
def test_arbitrary_text_raises_only_settings_errors(text: str) -> None:
    """Whether it is YAML or not."""
    for problem in found_in(text):
        assert str(problem).isprintable()
