// Lists, makes and revokes keys. Whatever comes from the API is shown as text, never as markup.

import { ask, at, copies, json, keptKey, tell } from "./common.js";

const key = keptKey("admin-key", list);
let keys = [];

async function list() {
  try {
    ({ keys } = await json(await ask("/api-keys", key())));
    show();
    if (at("message").classList.contains("bad")) tell("");
  } catch (error) {
    keys = [];
    show();
    tell(error.message, true);
  }
}

function show() {
  const shown = keys.filter((each) => each.is_active || at("show-revoked").checked);
  at("rows").replaceChildren(...shown.reverse().map(row));
  at("empty").hidden = shown.length > 0;
}

function row(each) {
  const made = document.createElement("tr");
  const name = document.createElement("th");
  name.scope = "row";
  name.textContent = each.name;
  made.append(name);
  const limits = [...each.models, ...each.endpoints.map((endpoint) => `@${endpoint}`)];
  const state = stateOf(each);
  for (const text of [
    `${each.prefix}…`, each.user_id, each.tier, each.operations.join(", "),
    limits.join(", ") || "nothing", day(each.created_at), String(each.made_by ?? ""),
  ]) {
    made.append(cell(text));
  }
  const told = cell(state === "active" && each.expires_at ? `active until ${day(each.expires_at)}` : state);
  told.className = state;
  const last = document.createElement("td");
  if (each.is_active) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "danger";
    button.textContent = "Revoke";
    button.setAttribute("aria-label", `Revoke ${each.name}`);
    button.addEventListener("click", () => revoke(each));
    last.append(button);
  }
  made.append(told, last);
  return made;
}

function cell(text) {
  const made = document.createElement("td");
  made.textContent = text;
  return made;
}

function stateOf(each) {
  if (!each.is_active) return "revoked";
  return each.expires_at && new Date(each.expires_at) <= new Date() ? "expired" : "active";
}

function day(time) {
  return time ? new Date(time).toLocaleDateString() : "";
}

function words(id) {
  return at(id).value.split(",").map((each) => each.trim()).filter(Boolean);
}

async function create(event) {
  event.preventDefault();
  const checked = document.querySelectorAll('input[name="operation"]:checked');
  const body = {
    name: at("name").value.trim(),
    user_id: at("user").value.trim(),
    tier: at("tier").value.trim(),
    operations: [...checked].map((each) => each.value),
    models: words("models"),
    endpoints: words("endpoints"),
    expires_in_days: at("days").value ? Number(at("days").value) : null,
  };
  try {
    const made = await json(
      await ask("/api-keys", key(), { method: "POST", body: JSON.stringify(body) }),
    );
    at("made-key").textContent = made.key;
    at("made").hidden = false;
    at("made").focus();
    at("create").reset();
    tell(`The key “${made.name}” was made.`);
    await list();
  } catch (error) {
    tell(error.message, true);
  }
}

function revoke(each) {
  const dialog = at("confirm");
  at("confirm-name").textContent = `${each.name} (${each.prefix}…)`;
  dialog.returnValue = "";
  dialog.addEventListener("close", async () => {
    if (dialog.returnValue !== "revoke") return;
    try {
      const ended = await json(
        await ask(`/api-keys/${encodeURIComponent(each.id)}`, key(), { method: "DELETE" }),
      );
      const others = ended.also_revoked.length;
      tell(`The key “${each.name}” was revoked${others ? `, and ${others} that it made` : ""}.`);
    } catch (error) {
      tell(error.message, true);
    }
    await list();
  }, { once: true });
  dialog.showModal();
}

at("create").addEventListener("submit", create);
at("reload").addEventListener("click", list);
at("show-revoked").addEventListener("change", show);
at("dismiss").addEventListener("click", () => {
  at("made").hidden = true;
  at("made-key").textContent = "";
});
copies(at("copy"), () => at("made-key").textContent);
list();
