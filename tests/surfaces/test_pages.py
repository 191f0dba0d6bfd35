"""The pages: whole, safe, and of one piece with the API they ask."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import requests

from olla.surfaces.pages import PAGES, SAFE_HEADERS
from tests.routers import ThreadedFleet, threaded_fleet

HTML = [path for path, name in PAGES.items() if name.endswith(".html")]
SCRIPTS = [name for name in PAGES.values() if name.endswith(".js")]


class Page(HTMLParser):
    """What a page consists of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inline = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] in ("script", "style") and data.strip():
            self.inline = True

    def ids(self) -> list[str]:
        return [attributes["id"] or "" for _, attributes in self.tags if "id" in attributes]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThreadedFleet]:
    """A router that needs keys, with the API at a prefix of its own."""
    extra = (
        "access: {require_key: true, keys: [{name: page, key: key-of-the-page},"
        " {name: root, key: key-of-an-admin, operations: [admin]}]}\n"
        "surfaces: {management: {prefix: /api}}\n"
        f"store: {{url: 'sqlite:///{tmp_path_factory.mktemp('store')}/keys.db'}}\n"
    )
    with threaded_fleet({"only": ("llama3.2:latest",)}, extra) as running:
        yield running


def source(name: str) -> str:
    """A file of the pages."""
    return (files("olla") / "web" / name).read_text("utf-8")


def get(fleet: ThreadedFleet, path: str) -> requests.Response:
    """Asked without a key."""
    return requests.get(f"{fleet.url}{path}", timeout=10)


@pytest.mark.parametrize("path", PAGES)
def test_pages_need_no_key_and_are_safe(fleet: ThreadedFleet, path: str) -> None:
    """Each with the strict policy; other methods are refused."""
    answer = get(fleet, path)
    assert answer.status_code == 200
    assert {name: answer.headers[name] for name in SAFE_HEADERS} == SAFE_HEADERS
    assert requests.head(f"{fleet.url}{path}", timeout=10).status_code == 200
    assert requests.post(f"{fleet.url}{path}", timeout=10).status_code == 405


def test_the_policy_allows_nothing_from_elsewhere_and_nothing_inline() -> None:
    """Neither hosts nor `unsafe-inline`."""
    policy = SAFE_HEADERS["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert set(re.findall(r"'([a-z-]+)'", policy)) == {"none", "self"}
    assert "http" not in policy


@pytest.mark.parametrize("path", HTML)
def test_a_page_loads_what_is_there_and_runs_nothing_inline(
    fleet: ThreadedFleet, path: str
) -> None:
    """No inline script, style or handler, which the policy would stop; every file exists."""
    page = Page(get(fleet, path).text)
    assert not page.inline
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        for name in ("src", "href"):
            wanted = attributes.get(name) or "#"
            assert wanted.startswith("#") or get(fleet, wanted).status_code == 200


@pytest.mark.parametrize("path", HTML)
def test_a_page_knows_where_the_api_is(fleet: ThreadedFleet, path: str) -> None:
    """At the configured prefix."""
    tags = Page(get(fleet, path).text).tags
    assert ("meta", {"name": "olla-prefix", "content": "/api"}) in tags


@pytest.mark.parametrize("path", HTML)
def test_a_page_can_be_used_without_seeing_it(path: str) -> None:
    """A language, one heading, a main part, and a label for each field."""
    page = Page(source(PAGES[path]))
    assert ("html", {"lang": "en"}) in page.tags
    assert [tag for tag, _ in page.tags].count("h1") == 1
    assert [tag for tag, _ in page.tags].count("main") == 1
    labelled = {attributes["for"] for tag, attributes in page.tags if tag == "label" and attributes}
    for tag, attributes in page.tags:
        is_box = attributes.get("type") in ("checkbox", "radio")  # which stand in their labels
        if tag in ("input", "select", "textarea") and not is_box:
            assert attributes["id"] in labelled
    ids = page.ids()
    assert len(ids) == len(set(ids))
    for _, attributes in page.tags:
        for name in ("aria-labelledby", "aria-describedby"):
            assert set((attributes.get(name) or "").split()) <= set(ids)


@pytest.mark.parametrize("name", ["api-keys", "playground"])
def test_a_script_finds_what_it_looks_for(name: str) -> None:
    """Each id that it names is on its page."""
    named = set(re.findall(r'\bat\("([a-z-]+)"\)', source(f"{name}.js") + source("common.js")))
    assert named <= set(Page(source(f"{name}.html")).ids())


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_show_text_as_text(name: str) -> None:
    """Nothing that comes from users or models becomes markup, and nothing is evaluated."""
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacent",
        "document.write",
        "eval(",
        "Function(",
    ):
        assert word not in source(name)


def test_static_files_are_part_of_the_package() -> None:
    """As the build is told."""
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert '"web/*"' in project
    there = {each.name for each in (files("olla") / "web").iterdir()}
    assert there == set(PAGES.values())


def run(fleet: ThreadedFleet, page: str) -> dict[str, Any]:
    """What a page shows after it was used; see `browser.mjs`."""
    browser = Path(__file__).with_name("browser.mjs")
    key = "key-of-the-page" if page == "playground" else "key-of-an-admin"
    command = ["node", str(browser), fleet.url, page, str(files("olla") / "web"), key]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=15)
    assert ran.returncode == 0, ran.stderr
    shown: dict[str, Any] = json.loads(ran.stdout)
    return shown


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
def test_a_key_is_made_and_revoked_on_its_page(fleet: ThreadedFleet) -> None:
    """Shown once, listed without its secret and with its name as it is, and gone once revoked."""
    shown = run(fleet, "api-keys")
    assert shown["key"].startswith("oa-")
    assert shown["row"][0] == "<b>mine</b>"
    assert shown["key"].startswith(shown["row"][1].rstrip("…"))
    assert shown["row"][3:6] == ["premium", "embed, generate, list", "llama3*, mistral"]
    assert "was revoked" in shown["message"]


@pytest.mark.skipif(
    shutil.which("node") is None or shutil.which("curl") is None,
    reason="Node.js or curl is not installed",
)
def test_the_playground_asks_and_its_curl_does_the_same(fleet: ThreadedFleet) -> None:
    """Streaming and whole: the text, where it was made, and a command that works as it stands."""
    shown = run(fleet, "playground")
    for way in ("stream", "whole"):
        assert shown[way]["answer"].strip()
        assert "only" in shown[way]["facts"]
        environment = {**os.environ, "OLLA_API_KEY": "key-of-the-page"}
        ran = subprocess.run(
            shown[way]["curl"], shell=True, capture_output=True, timeout=15, env=environment
        )
        assert shown[way]["answer"].split()[0].encode() in ran.stdout
    assert shown["message"] == ""
