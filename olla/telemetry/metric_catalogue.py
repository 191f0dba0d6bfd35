"""List every metric that olla exports, one row each: name, kind, labels, meaning.

`metrics` and `live_gauges` build their instruments from these rows, and `docs/metrics.md` shows
them, so the three cannot disagree. Nothing is counted here.
"""

import enum

import msgspec

__all__ = ["CATALOGUE", "MetricKind", "MetricRow", "metric_row", "table"]


class MetricKind(enum.Enum):
    """The kind of a metric."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class MetricRow(msgspec.Struct, frozen=True):
    """A metric. `buckets` are the upper bounds of a histogram, without the infinite one."""

    name: str
    kind: MetricKind
    labels: tuple[str, ...]
    meaning: str
    buckets: tuple[float, ...] = ()


_COUNTER, _GAUGE, _HISTOGRAM = MetricKind.COUNTER, MetricKind.GAUGE, MetricKind.HISTOGRAM

_SECONDS = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0),
)
"""From a loaded model's first token to a long generation or the load of a large model."""

_ERRORS = (-30.0, -10.0, -3.0, -1.0, -0.3, -0.1, 0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)

CATALOGUE: tuple[MetricRow, ...] = (
    MetricRow(
        "olla_requests_total",
        _COUNTER,
        ("operation", "dialect", "endpoint", "status"),
        "Requests finished. `endpoint` is the one that answered, empty when none did; `status` is"
        " the HTTP status the client got.",
    ),
    MetricRow(
        "olla_request_duration_seconds",
        _HISTOGRAM,
        ("operation",),
        "Time from the request's arrival to the last byte of its answer.",
        _SECONDS,
    ),
    MetricRow(
        "olla_time_to_first_byte_seconds",
        _HISTOGRAM,
        ("operation", "endpoint"),
        "Time from the request's arrival to the first byte of an endpoint's answer.",
        _SECONDS,
    ),
    MetricRow(
        "olla_attempts_total",
        _COUNTER,
        ("endpoint", "outcome"),
        "Tries against an endpoint. `outcome` is `ok` or the kind of failure.",
    ),
    MetricRow(
        "olla_failures_total",
        _COUNTER,
        ("kind", "origin", "phase"),
        "Requests that failed: what broke, who broke it (`client`, `olla`, `endpoint`) and how far"
        " the request had come.",
    ),
    MetricRow(
        "olla_tokens_total",
        _COUNTER,
        ("endpoint", "model", "direction"),
        "Tokens as endpoints counted them, or as estimated where they did not; `direction` is"
        " `prompt` or `output`. `model` is `other` for a name no endpoint lists and past the first"
        " 200 names.",
    ),
    MetricRow(
        "olla_model_load_seconds",
        _HISTOGRAM,
        ("endpoint",),
        "Time an endpoint says it spent on getting the model ready, per answer. A resident model"
        " counts with some milliseconds, so what is slower than a bucket or two was a load.",
        _SECONDS,
    ),
    MetricRow(
        "olla_queue_seconds",
        _HISTOGRAM,
        (),
        "Time inference requests waited in olla for a slot or a load, of those that had to.",
        _SECONDS,
    ),
    MetricRow(
        "olla_prediction_error_seconds",
        _HISTOGRAM,
        ("endpoint",),
        "Expected less observed time to the first byte, of requests that were routed by expected"
        " delay: below zero means it took longer.",
        _ERRORS,
    ),
    MetricRow(
        "olla_retries_total",
        _COUNTER,
        ("outcome",),
        "Requests tried again on another endpoint (`made`), and those for which the retry budget"
        " had nothing left (`refused`).",
    ),
    MetricRow(
        "olla_log_lines_dropped_total",
        _COUNTER,
        ("log",),
        "Lines of a log that were dropped, because its reader has stalled or its disk is full:"
        " `requests`, `router` (what the router says of itself) or `decisions`.",
    ),
    MetricRow(
        "olla_config_reloads_total",
        _COUNTER,
        ("outcome",),
        "Settings read again while running: `ok`, or `failed`, which changed nothing.",
    ),
    MetricRow(
        "olla_limits_exceeded_total",
        _COUNTER,
        ("limit", "outcome"),
        "Requests that came to a limit: `refused`, or `passed` where the limit is a shadow. `limit`"
        " is its place in the configuration.",
    ),
    MetricRow("olla_api_keys", _GAUGE, (), "API keys that are known, revoked ones too."),
    MetricRow(
        "olla_store_up",
        _GAUGE,
        (),
        "1 when the store of keys and usage can be read and written, else 0. Not there as long as"
        " no store is needed.",
    ),
    MetricRow("olla_usage_written_total", _COUNTER, (), "Requests whose usage is in the store."),
    MetricRow(
        "olla_usage_lost_total",
        _COUNTER,
        (),
        "Requests whose usage will never be in the store, because it was away for too long.",
    ),
    MetricRow("olla_usage_pending", _GAUGE, (), "Requests whose usage waits to be written."),
    MetricRow(
        "olla_shared_state_up",
        _GAUGE,
        (),
        "1 when the state that routers share can be reached, else 0: then this router's own limits"
        " hold. Only there when `state.url` is set.",
    ),
    MetricRow(
        "olla_shared_state_fallbacks_total",
        _COUNTER,
        (),
        "Requests for which this router's own limits decided, because the shared state did not"
        " answer.",
    ),
    MetricRow(
        "olla_models_stuck",
        _GAUGE,
        ("endpoint",),
        "Models on which nothing moves although the endpoint says that it is well.",
    ),
    MetricRow(
        "olla_queue_length",
        _GAUGE,
        (),
        "Inference requests that wait in olla.",
    ),
    MetricRow(
        "olla_loads_in_progress",
        _GAUGE,
        ("endpoint",),
        "Model loads under way or waiting for their turn on the endpoint, as olla believes.",
    ),
    MetricRow(
        "olla_estimate_prompt_tokens_per_second",
        _GAUGE,
        ("endpoint", "model"),
        "Learned rate at which the endpoint reads prompts, for models it has in memory.",
    ),
    MetricRow(
        "olla_estimate_output_tokens_per_second",
        _GAUGE,
        ("endpoint", "model"),
        "Learned rate at which the endpoint writes answers, for models it has in memory.",
    ),
    MetricRow(
        "olla_estimate_load_seconds",
        _GAUGE,
        ("endpoint", "model"),
        "Expected time of loading the model again, for models the endpoint has in memory.",
    ),
    MetricRow(
        "olla_estimate_slots",
        _GAUGE,
        ("endpoint", "model"),
        "Requests the endpoint works on at a time, told or found out, for models in memory.",
    ),
    MetricRow(
        "olla_requests_in_flight",
        _GAUGE,
        ("endpoint",),
        "Inference requests that are with the endpoint now, by olla's own count.",
    ),
    MetricRow(
        "olla_endpoint_up",
        _GAUGE,
        ("endpoint", "type"),
        "1 when probes find the endpoint fit to take requests, else 0. `type` is `auto` until the"
        " kind of server is known.",
    ),
    MetricRow(
        "olla_endpoint_health",
        _GAUGE,
        ("endpoint", "state"),
        "What probes say: 1 for the state the endpoint is in, 0 for the others.",
    ),
    MetricRow(
        "olla_endpoint_breaker",
        _GAUGE,
        ("endpoint", "state"),
        "What traffic says: 1 for the state the endpoint's breaker is in, 0 for the others.",
    ),
    MetricRow(
        "olla_models_available",
        _GAUGE,
        ("endpoint",),
        "Models the endpoint has on disk and olla may use.",
    ),
    MetricRow(
        "olla_models_resident",
        _GAUGE,
        ("endpoint",),
        "Models in the endpoint's memory.",
    ),
    MetricRow(
        "olla_resident_vram_bytes",
        _GAUGE,
        ("endpoint",),
        "GPU memory the resident models take, as the endpoint tells it.",
    ),
    MetricRow(
        "olla_open_connections",
        _GAUGE,
        (),
        "Client connections that are open now.",
    ),
    MetricRow(
        "olla_event_loop_lag_seconds",
        _GAUGE,
        (),
        "How late the event loop ran a timer, the worst of the last half minute.",
    ),
    MetricRow(
        "olla_build_info",
        _GAUGE,
        ("version",),
        "Always 1; the label tells the version that runs.",
    ),
    MetricRow("process_virtual_memory_bytes", _GAUGE, (), "Virtual memory of the process."),
    MetricRow("process_resident_memory_bytes", _GAUGE, (), "Resident memory of the process."),
    MetricRow("process_start_time_seconds", _GAUGE, (), "When the process started, Unix time."),
    MetricRow("process_cpu_seconds_total", _COUNTER, (), "CPU time, user and system."),
    MetricRow("process_open_fds", _GAUGE, (), "File descriptors that are open."),
    MetricRow("process_max_fds", _GAUGE, (), "File descriptors that may be open."),
    MetricRow(
        "python_gc_objects_collected_total",
        _COUNTER,
        ("generation",),
        "Objects the garbage collector freed.",
    ),
    MetricRow(
        "python_gc_objects_uncollectable_total",
        _COUNTER,
        ("generation",),
        "Objects the garbage collector found and could not free.",
    ),
    MetricRow(
        "python_gc_collections_total",
        _COUNTER,
        ("generation",),
        "Runs of the garbage collector.",
    ),
)

_BY_NAME = {row.name: row for row in CATALOGUE}


def metric_row(name: str) -> MetricRow:
    """Return the row of a metric. Raises KeyError if it does not exist."""
    return _BY_NAME[name]


def table() -> str:
    """Return the catalogue as the Markdown table of `docs/metrics.md`."""
    lines = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for row in CATALOGUE:
        labels = ", ".join(f"`{label}`" for label in row.labels)
        lines.append(f"| `{row.name}` | {row.kind.value} | {labels} | {row.meaning} |")
    return "\n".join(lines) + "\n"
