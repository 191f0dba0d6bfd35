"""Tests of `olla simulate-node`."""

import json
import socket
import urllib.request
from collections.abc import Callable
from typing import Any


def test_a_simulated_node_has_the_given_models(start: Callable[..., Any]) -> None:
    """It shows its URL, lists its models, and stops on SIGTERM."""
    node = start("simulate-node", "--port", "0", "--model", "llama3.2", "--model", "mistral")
    url = node.line_with("simulated Ollama node at ").split()[-1]
    with urllib.request.urlopen(f"{url}/api/tags") as response:
        names = {each["name"] for each in json.load(response)["models"]}
    assert names == {"llama3.2:latest", "mistral:latest"}
    status, rest = node.stop()
    assert status == 0, rest


def test_a_port_in_use_is_reported(start: Callable[..., Any]) -> None:
    """On one line, with exit status 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        node = start("simulate-node", "--port", str(port))
        assert f"cannot listen on 127.0.0.1:{port}" in node.line_with("olla: ")
    assert node.wait()[0] == 1
