// Adds to the page what needs a script: search, command lines as fields change, and requests to try.

const SHOWN = 64 * 1024;

const quoted = text => `'${text.replaceAll("'", "'\\''")}'`;

const field = id => document.getElementById(id)?.value ?? "";

const keys = () => [...document.querySelectorAll("#credentials [data-header]")].filter(input => input.value);

/** The credentials in the form at the top, as headers. */
function secrets() {
  const headers = keys().map(input => [input.dataset.header, input.value]);
  if (field("token")) headers.push(["Authorization", `Bearer ${field("token")}`]);
  else if (field("user")) {
    const bytes = new TextEncoder().encode(`${field("user")}:${field("password")}`);
    headers.push(["Authorization", `Basic ${btoa(String.fromCharCode(...bytes))}`]);
  }
  return headers;
}

/** Method, URL, headers and body that a form asks for. */
function wanted(form) {
  let path = form.dataset.path;
  const query = new URLSearchParams();
  const headers = [];
  for (const input of form.querySelectorAll("[data-in]")) {
    if (input.dataset.in === "path") path = path.replace(`{${input.name}}`, encodeURIComponent(input.value));
    else if (input.value === "") continue;
    else if (input.dataset.in === "query") query.append(input.name, input.value);
    else headers.push([input.name, input.value]);
  }
  const area = form.querySelector("textarea");
  const body = area?.value || undefined;
  if (body !== undefined) headers.push(["Content-Type", form.querySelector(".type").value]);
  const tail = query.size ? `?${query}` : "";
  return {method: form.dataset.method, url: location.origin + path + tail, headers, body};
}

/** The same as a command line; it has the user's name, never a password. */
function curl({method, url, headers, body}) {
  const words = ["curl -i"];
  if (method !== "GET") words.push(`-X ${method}`);
  if (field("token")) words.push('-H "Authorization: Bearer $TOKEN"');
  else if (field("user")) words.push(`-u ${quoted(field("user"))}`);
  for (const input of keys()) words.push(`-H "${input.dataset.header}: $KEY"`);
  for (const [name, value] of headers) words.push(`-H ${quoted(`${name}: ${value}`)}`);
  if (body !== undefined) words.push(`--data-binary ${quoted(body)}`);
  words.push(quoted(url));
  return words.join(" ");
}

function show(form) {
  form.querySelector(".curl").textContent = curl(wanted(form));
}

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** The first part of a body, as text; a long answer is not read to its end. */
async function beginning(response) {
  const reader = response.body?.getReader();
  if (!reader) return "";
  const decoder = new TextDecoder();
  let text = "";
  for (;;) {
    const {done, value} = await reader.read();
    if (done) return text + decoder.decode();
    text += decoder.decode(value, {stream: true});
    if (text.length > SHOWN) {
      await reader.cancel();
      return `${text.slice(0, SHOWN)}\n... (the rest is not shown)`;
    }
  }
}

function readable(text, type) {
  if (!type.includes("json") || type.includes("ndjson")) return text;
  try {
    // Numbers that JavaScript would round are shown as they came.
    return /[0-9]{16}/.test(text) ? text : JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

async function send(form) {
  const {method, url, headers, body} = wanted(form);
  const outcome = form.querySelector(".outcome");
  const button = form.querySelector("[type=submit]");
  const parts = [];
  button.disabled = true;
  try {
    const sent = [...headers, ...secrets()];
    const response = await fetch(url, {method, headers: sent, body, credentials: "omit", cache: "no-store"});
    const text = await beginning(response);
    const lines = [...response.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
    parts.push(element("p", `${response.status} ${response.statusText}`, {role: "status"}));
    parts.push(element("pre", lines, {tabindex: "0", "aria-label": "Headers of the answer"}));
    if (text) {
      const shown = readable(text, response.headers.get("Content-Type") ?? "");
      parts.push(element("pre", shown, {tabindex: "0", "aria-label": "Body of the answer"}));
    }
    outcome.classList.toggle("failed", !response.ok);
  } catch (error) {
    parts.push(element("p", `No answer: ${error.message}`, {role: "status"}));
    outcome.classList.add("failed");
  }
  button.disabled = false;
  outcome.hidden = false;
  outcome.replaceChildren(...parts);
}

async function copy(button) {
  const text = button.closest(".line").querySelector(".curl").textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(button.closest(".line").querySelector(".curl"));
    button.textContent = "Selected";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
}

function search(words) {
  const all = words.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const article of document.querySelectorAll("[data-words]")) {
    const fits = all.every(word => article.dataset.words.includes(word));
    article.hidden = !fits;
    document.querySelector(`[data-for="${CSS.escape(article.id)}"]`).hidden = !fits;
    count += fits;
  }
  for (const group of document.querySelectorAll("nav details")) {
    group.hidden = !group.querySelector("li:not([hidden])");
  }
  for (const section of document.querySelectorAll("section.tag")) {
    section.hidden = !section.querySelector("article:not([hidden])");
  }
  document.getElementById("found").textContent = all.length ? `${count} found` : "";
}

function follow() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target?.closest("[hidden]")) {
    document.getElementById("search").value = "";
    search("");
    target.scrollIntoView();
  }
}

for (const hidden of document.querySelectorAll(".search, #credentials, .buttons")) hidden.hidden = false;
for (const form of document.querySelectorAll("form.try")) show(form);

document.addEventListener("input", ({target}) => {
  if (target.id === "search") search(target.value);
  else if (target.closest("#credentials")) document.querySelectorAll("form.try").forEach(show);
  else if (target.form?.classList.contains("try")) show(target.form);
});
document.addEventListener("submit", event => {
  event.preventDefault();
  if (event.target.classList.contains("try")) send(event.target);
});
document.addEventListener("click", ({target}) => {
  if (target.classList.contains("copy")) copy(target);
});
document.addEventListener("keydown", event => {
  if (event.key === "/" && !event.target.closest("input, textarea, select")) {
    event.preventDefault();
    document.getElementById("search").focus();
  }
});
addEventListener("hashchange", follow);
