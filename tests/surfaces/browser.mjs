// A browser with just enough in it to run the pages' scripts: elements by id, events, fetch.
// Called with a router's address and the name of a page; prints what the page shows in the end.

import { readFile } from "node:fs/promises";

const [base, page, folder, key] = process.argv.slice(2);

class Element {
  constructor() {
    Object.assign(this, { children: [], listeners: {}, value: "", hidden: false, checked: false });
    Object.assign(this, { disabled: false, open: false, own: "", className: "", attributes: {} });
    const classes = new Set();
    this.classList = {
      toggle: (name, on) => (on ? classes.add(name) : classes.delete(name)),
      contains: (name) => classes.has(name),
    };
  }
  get textContent() { return this.own + this.children.map((each) => each.textContent ?? each).join(""); }
  set textContent(text) { this.own = String(text); this.children = []; }
  append(...more) { this.children.push(...more); }
  replaceChildren(...more) { this.own = ""; this.children = more; if (more[0]?.value) this.value = more[0].value; }
  setAttribute(name, value) { this.attributes[name] = value; }
  addEventListener(name, listener) { (this.listeners[name] ??= []).push(listener); }
  focus() {}
  reset() {}
  showModal() { this.returnValue = "revoke"; this.fire("close"); }
  async fire(name) {
    for (const listener of this.listeners[name] ?? []) await listener({ preventDefault() {} });
  }
}

const html = await (await fetch(`${base}/admin/${page}`)).text();
const elements = {};
for (const [, id] of html.matchAll(/\bid="([\w-]+)"/g)) elements[id] = new Element();
const found = (pattern) => html.match(pattern)?.[1];
const checked = (name) =>
  [...html.matchAll(new RegExp(`name="${name}" value="(\\w+)" checked`, "g"))].map(([, value]) => ({ value }));
globalThis.document = {
  getElementById: (id) => elements[id],
  createElement: () => new Element(),
  querySelector: (selector) =>
    selector.startsWith("meta") ? { content: found(/name="olla-prefix" content="([^"]*)"/) } : checked("kind")[0],
  querySelectorAll: () => checked("operation"),
};
globalThis.sessionStorage = { getItem: () => key || null, setItem() {}, removeItem() {} };
globalThis.location = { origin: base };
const really = fetch;
globalThis.fetch = (path, options) => really(base + path, options);

async function until(condition) {
  for (const end = Date.now() + 8000; !condition(); ) {
    if (Date.now() > end) throw new Error(`still: ${elements.message.textContent}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

const common = await readFile(`${folder}/common.js`, "utf8");
const script = await readFile(`${folder}/${page}.js`, "utf8");
const shared = `data:text/javascript,${encodeURIComponent(common)}`;
await import(`data:text/javascript,${encodeURIComponent(script.replace("./common.js", shared))}`);

const shown = {};
if (page === "api-keys") {
  await until(() => !elements.empty.hidden);
  elements.name.value = "<b>mine</b>";
  elements.tier.value = "premium";
  elements.models.value = "llama3*, mistral";
  await elements.create.fire("submit");
  shown.key = elements["made-key"].textContent;
  shown.row = elements.rows.children[0].children.map((each) => each.textContent);
  elements.rows.children[0].children.at(-1).children[0].fire("click");
  await until(() => elements.rows.children.length === 0);
} else {
  await until(() => elements.model.children.length > 0);
  Object.assign(elements.prompt, { value: "it's a test" });
  Object.assign(elements.temperature, { value: "0.5" });
  Object.assign(elements["max-tokens"], { value: "4" });
  for (const stream of [true, false]) {
    elements.stream.checked = stream;
    await elements.ask.fire("input");
    await elements.ask.fire("submit");
    shown[stream ? "stream" : "whole"] = {
      answer: elements.answer.textContent,
      facts: elements.facts.children.map((each) => each.textContent),
      curl: elements.curl.textContent,
    };
  }
}
shown.message = elements.message.textContent;
console.log(JSON.stringify(shown));
