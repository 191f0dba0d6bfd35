"""Allowed and foreign pages in a real browser."""

import pytest

from tests.access_control.conftest import MODEL
from tests.browser import Site, browse, browser_binary
from tests.routers import Fleet

pytestmark = pytest.mark.timeout(150)

ACCESS = """\
access:
  keys: [{name: page, key: key-of-the-page, tier: narrow, operations: [generate, list]}]
  tiers: {narrow: {requests_per_minute: 3}}
"""
APP = """
    const router = "%(router)s";
    const post = (path, body, headers = {}) => fetch(router + path, {
        method: "POST",
        headers: {"Content-Type": "application/json", ...headers},
        body: JSON.stringify(body),
    });
    async function main() {
        const found = {};
        const list = await fetch(router + "/api/tags");
        found.models = (await list.json()).models.map((each) => each.name);
        const key = {Authorization: "Bearer key-of-the-page"};
        const messages = [{role: "user", content: "hi"}];
        const chat = await post("/api/chat",
            {model: "%(model)s", messages, stream: false}, key);
        found.chat = [chat.status, typeof (await chat.json()).message.content];
        found.told = chat.headers.get("X-Olla-Model");
        const stream = await post("/v1/chat/completions",
            {model: "%(model)s", messages, stream: true, max_tokens: 20}, key);
        const reader = stream.body.getReader();
        let text = "";
        for (;;) {
            const {done, value} = await reader.read();
            if (done) break;
            text += new TextDecoder().decode(value);
        }
        const events = text.split("\\n\\n").length;
        found.stream = [stream.headers.get("Content-Type"), events > 5, text.includes("[DONE]")];
        await post("/api/chat", {model: "%(model)s", messages, stream: false}, key);
        const refused = await post("/api/chat", {model: "%(model)s", messages}, key);
        found.refused = [refused.status, (await refused.json()).error.includes("Rate limit"),
            Number(refused.headers.get("Retry-After")) > 0,
            refused.headers.get("X-RateLimit-Limit"), refused.headers.get("X-RateLimit-Remaining")];
        const unknown = await post("/api/chat", {}, {Authorization: "Bearer oa-nobodys"});
        found.unknown = [unknown.status, (await unknown.json()).error.length > 0];
        const missing = await fetch(router + "/nowhere", {method: "DELETE"});
        found.missing = missing.status;
        return found;
    }
"""
FOREIGN = """
    const router = "%(router)s";
    const body = JSON.stringify({model: "%(model)s", prompt: "x", stream: false});
    const tries = {
        list: () => fetch(router + "/api/tags"),
        json: () => fetch(router + "/api/generate",
            {method: "POST", headers: {"Content-Type": "application/json"}, body}),
        plain: () => fetch(router + "/api/generate", {method: "POST", body}),
        form: () => fetch(router + "/api/generate", {method: "POST", body,
            headers: {"Content-Type": "application/x-www-form-urlencoded"}}),
        chat: () => fetch(router + "/chat", {method: "POST",
            body: JSON.stringify({message: "x", model: "%(model)s"})}),
        pull: () => fetch(router + "/api/pull", {method: "POST", body}),
        status: () => fetch(router + "/internal/status"),
    };
    async function main() {
        const found = {};
        for (const [name, attempt] of Object.entries(tries)) {
            try { found[name] = (await attempt()).status; }
            catch (error) { found[name] = error.constructor.name; }
        }
        // Without a preflight: the request is sent, and must have no effect.
        await fetch(router + "/api/generate", {method: "POST", mode: "no-cors", body});
        await fetch(router + "/chat", {method: "POST", mode: "no-cors",
            body: JSON.stringify({message: "x", model: "%(model)s"})});
        return found;
    }
"""
REBINDING = """
    async function main() {
        await tell();
        const found = {};
        for (;;) {
            try {
                const list = await fetch("/api/tags");
                if (list.headers.has("X-Olla-Request-ID")) {
                    found.list = [list.status, (await list.text()).includes("%(model)s")];
                    break;
                }
            } catch { /* no server listens on the port for a moment */ }
            await pause(50);
        }
        const body = JSON.stringify({message: "x", model: "%(model)s"});
        found.chat = (await fetch("/chat", {method: "POST", body})).status;
        found.generate = (await fetch("/api/generate", {method: "POST", body})).status;
        found.status = (await fetch("/internal/status")).status;
        return found;
    }
"""


def server(fast_path: str, more: str = "") -> str:
    """Return settings for a router that accepts only its own names."""
    return f"fast_path: {fast_path}, allowed_hosts: []{more}"


@pytest.mark.parametrize("fast_path", ["auto", "off"])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_an_allowed_page_can_use_the_apis(fast_path: str, host: str) -> None:
    """It lists models, chats, streams, and reads errors with Retry-After and the rate-limit
    headers."""
    browser_binary()
    async with Fleet({"a": (MODEL,)}, ACCESS, server(fast_path)) as fleet:
        router = fleet.url.replace("127.0.0.1", host)
        async with (
            Site(APP % {"router": router, "model": MODEL}) as site,
            browse(f"http://localhost:{site.port}/"),
        ):
            found = await site.reported
    assert found == {
        "models": [MODEL],
        "chat": [200, "string"],
        "told": MODEL,
        "stream": ["text/event-stream", True, True],
        "refused": [429, True, True, "3", "0"],
        "unknown": [401, True],
        "missing": 404,
    }


@pytest.mark.parametrize("fast_path", ["auto", "off"])
async def test_a_foreign_page_has_no_access(fast_path: str) -> None:
    """It cannot read any response, and requests that it sends without reading have no effect."""
    browser_binary()
    async with Fleet({"a": (MODEL,)}, "", server(fast_path)) as fleet:
        async with (
            Site(FOREIGN % {"router": fleet.url, "model": MODEL}) as site,
            browse(f"http://evil.test:{site.port}/"),
        ):
            found = await site.reported
        assert found == dict.fromkeys(
            ("list", "json", "plain", "form", "chat", "pull", "status"), "TypeError"
        )
        assert fleet.nodes["a"].tokens_generated == 0
        received = [seen for seen in fleet.nodes["a"].seen if seen.header("X-Olla-Request-ID")]
        assert received == []


@pytest.mark.parametrize("fast_path", ["auto", "off"])
async def test_dns_rebinding_gives_a_page_no_access(fast_path: str) -> None:
    """The page's name now resolves to the router, so browsers treat its requests as same-origin."""
    browser_binary()
    async with Site("") as reporter:
        page = Site(REBINDING % {"model": MODEL}, reporter)
        async with page:
            port = page.port
            async with browse(f"http://evil.test:{port}/"):
                await reporter.told.wait()
                await page.stop()
                more = f", port: {port}"
                async with Fleet({"a": (MODEL,)}, "", server(fast_path, more)) as fleet:
                    found = await reporter.reported
                    assert fleet.nodes["a"].tokens_generated == 0
    assert found == {"list": [403, False], "chat": 403, "generate": 403, "status": 403}
