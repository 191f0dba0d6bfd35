// What both pages need: where the API is, the key that is shown to it, what is told.

export const prefix = document.querySelector('meta[name="olla-prefix"]').content;
export const at = (id) => document.getElementById(id);

/** A field whose value is kept until the tab is closed; returns how to read it. */
export function keptKey(id, changed) {
  const field = at(id);
  const name = "olla-key";
  field.value = sessionStorage.getItem(name) ?? "";
  field.addEventListener("change", () => {
    if (field.value) sessionStorage.setItem(name, field.value);
    else sessionStorage.removeItem(name);
    changed();
  });
  return () => field.value.trim();
}

/** Tell something, or nothing; `bad` where it went wrong. */
export function tell(text, bad = false) {
  const place = at("message");
  place.textContent = text;
  place.classList.toggle("bad", bad);
  place.hidden = !text;
}

/** Ask the API; `key` may be empty. */
export function ask(path, key, options = {}) {
  const headers = { ...options.headers };
  if (key) headers.Authorization = `Bearer ${key}`;
  if (options.body) headers["Content-Type"] = "application/json";
  return fetch(prefix + path, { ...options, headers });
}

/** The message of an answer that is an error. */
export async function problem(response) {
  try {
    const { error } = await response.json();
    return error.message ?? String(error);
  } catch {
    return `the router answered ${response.status} ${response.statusText}`;
  }
}

/** An answer's JSON; throws an Error with its message where it is an error, and opens the field for
 * a key where one is needed. */
export async function json(response) {
  if (response.ok) return response.json();
  if (response.status === 401 || response.status === 403) at("access").open = true;
  throw new Error(await problem(response));
}

/** A button that copies what `text` returns. */
export function copies(button, text) {
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text());
      tell("Copied.");
    } catch {
      tell("The browser does not allow copying here; select the text instead.", true);
    }
  });
}
