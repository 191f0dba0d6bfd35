"""Tests of `olla demo`."""

import json
import re
import urllib.request
from collections.abc import Callable
from typing import Any

from click.testing import Result

Invoke = Callable[..., Result]


def test_the_demo_answers_and_shows_its_fleet(start: Callable[..., Any], invoke: Invoke) -> None:
    """The banner's URL accepts a request, `olla status` shows the nodes, SIGTERM stops the demo."""
    demo = start("demo", "--port", "0", "--nodes", "2", "--time-scale", "0.001")
    match = re.search(r"http://127\.0\.0\.1:\d+", demo.line_with("olla is at "))
    assert match is not None
    url = match[0]
    assert f"{url}/olla/ollama/api/generate" in demo.line_with("/api/generate")
    assert f"{url}/olla/ollama/api/chat" in demo.line_with("curl -sN")
    body = json.dumps({"model": "llama3.2", "prompt": "Hi", "stream": False}).encode()
    with urllib.request.urlopen(f"{url}/olla/ollama/api/generate", body) as response:
        assert json.load(response)["done"] is True
        assert response.headers["X-Olla-Endpoint"] in ("node-1", "node-2")

    result = invoke("status", "--url", url)
    assert result.exit_code == 0
    assert re.search(r"node-1 +ollama +healthy", result.stdout)
    assert re.search(r"node-2 +ollama +healthy", result.stdout)
    assert "llama3.2:latest" in result.stdout
    assert json.loads(invoke("status", "--url", url, "--json").stdout)["requests"]["total"] == 1

    # The nodes are simulated, so callers without a key may change them.
    request = urllib.request.Request(
        f"{url}/api/delete", b'{"model": "llama3.2"}', {}, method="DELETE"
    )
    with urllib.request.urlopen(request) as response:
        assert response.status == 200

    status, rest = demo.stop()
    assert status == 0, rest


def test_a_time_scale_that_is_not_finite_is_a_usage_error(invoke: Invoke) -> None:
    """It does not cause a traceback."""
    for value in ("nan", "inf"):
        result = invoke("demo", "--time-scale", value)
        assert result.exit_code == 2
        assert "must be a finite number" in result.output
