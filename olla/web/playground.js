// Asks a model and shows what comes: the text, what the router tells of it, and the same with curl.

import { ask, at, copies, json, keptKey, prefix, problem, tell } from "./common.js";

const key = keptKey("api-key", loadModels);
const FACTS = {
  "X-Olla-Endpoint": "endpoint",
  "X-Olla-Model": "model",
  "X-Olla-Routing-Reason": "why there",
  "X-Olla-Response-Time": "first byte after",
  "X-Olla-Queue-Time": "waited in the queue",
  "X-Olla-Attempts": "endpoints tried",
  "X-Olla-Request-ID": "request",
  "X-RateLimit-Limit": "rate limit a minute",
  "X-RateLimit-Remaining": "of it left",
  "X-RateLimit-Reset": "all back at",
};
let models = [];
let running = null;

async function loadModels() {
  try {
    ({ models } = await json(await ask("/models", key())));
    const chosen = at("model").value;
    at("model").replaceChildren(...models.map(option));
    if (models.some((each) => each.id === chosen)) at("model").value = chosen;
    tell("");
    chooseModel();
  } catch (error) {
    tell(error.message, true);
  }
}

function option(each) {
  const made = document.createElement("option");
  made.value = each.id;
  made.textContent = each.is_active ? each.name : `${each.name} (not active)`;
  made.disabled = !each.is_active;
  return made;
}

function chooseModel() {
  const chosen = models.find((each) => each.id === at("model").value);
  at("about").textContent = chosen?.description ?? "";
  if (chosen?.parameters.temperature !== undefined) at("temperature").value = chosen.parameters.temperature;
  if (chosen?.parameters.max_tokens !== undefined) at("max-tokens").value = chosen.parameters.max_tokens;
  showCurl();
}

function kind() {
  return document.querySelector('input[name="kind"]:checked').value;
}

function request() {
  const body = { model: at("model").value };
  if (kind() === "chat") {
    const system = at("system").value.trim();
    body.messages = system ? [{ role: "system", content: system }] : [];
    body.messages.push({ role: "user", content: at("prompt").value });
  } else {
    body.prompt = at("prompt").value;
  }
  body.temperature = Number(at("temperature").value);
  body.max_tokens = Number(at("max-tokens").value);
  if (at("stream").checked) body.stream = true;
  return body;
}

function showCurl() {
  at("system-part").hidden = kind() !== "chat";
  const quoted = JSON.stringify(request(), null, 2).replaceAll("'", "'\\''");
  const lines = [`curl ${at("stream").checked ? "-N " : ""}-X POST "${location.origin}${prefix}/${kind()}"`];
  if (key()) lines.push('-H "Authorization: Bearer $OLLA_API_KEY"');
  lines.push('-H "Content-Type: application/json"', `-d '${quoted}'`);
  at("curl").textContent = lines.join(" \\\n  ");
}

function fact(name, value) {
  const term = document.createElement("dt");
  const told = document.createElement("dd");
  term.textContent = name;
  told.textContent = value;
  at("facts").append(term, told);
}

function showHeaders(response) {
  for (const [header, name] of Object.entries(FACTS)) {
    const value = response.headers.get(header);
    if (value === null) continue;
    const isTime = header === "X-RateLimit-Reset";
    fact(name, isTime ? new Date(Number(value) * 1000).toLocaleTimeString() : value);
  }
}

/** The data of each event of a stream. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data: ")) yield line.slice(6).trim();
  }
}

async function read(response) {
  if (!response.headers.get("Content-Type")?.startsWith("text/event-stream")) {
    const whole = await response.json();
    at("answer").textContent = whole.choices.map((each) => each.message?.content ?? each.text).join("\n");
    fact("tokens", `${whole.usage.prompt_tokens} in, ${whole.usage.completion_tokens} out`);
    fact("ended by", whole.choices[0]?.finish_reason ?? "");
    return;
  }
  for await (const data of events(response)) {
    if (data === "[DONE]") return;
    const part = JSON.parse(data);
    if (part.error) throw new Error(part.error.message);
    for (const each of part.choices ?? []) {
      at("answer").append(each.delta?.content ?? each.text ?? "");
      if (each.finish_reason) fact("ended by", each.finish_reason);
    }
  }
  throw new Error("The answer broke off.");
}

async function send(event) {
  event.preventDefault();
  running?.abort();
  const mine = (running = new AbortController());
  at("send").disabled = true;
  at("stop").disabled = false;
  at("answer").replaceChildren();
  at("facts").replaceChildren();
  tell("");
  const begun = performance.now();
  try {
    const options = { method: "POST", body: JSON.stringify(request()), signal: mine.signal };
    const response = await ask(`/${kind()}`, key(), options);
    showHeaders(response);
    if (!response.ok) {
      if (response.status === 401 || response.status === 403) at("access").open = true;
      throw new Error(await problem(response));
    }
    await read(response);
    fact("in all", `${((performance.now() - begun) / 1000).toFixed(2)} s`);
  } catch (error) {
    if (error.name === "AbortError") tell("Stopped.");
    else tell(error.message, true);
  } finally {
    if (running === mine) {
      at("send").disabled = false;
      at("stop").disabled = true;
    }
  }
}

at("ask").addEventListener("submit", send);
at("ask").addEventListener("input", showCurl);
at("model").addEventListener("change", chooseModel);
at("stop").addEventListener("click", () => running?.abort());
copies(at("copy"), () => at("curl").textContent);
showCurl();
loadModels();
