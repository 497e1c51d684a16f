// Pieces of pages.

import { curl } from "./api.mjs";
import { h, newId, show } from "./dom.mjs";
import { shown } from "./keys.mjs";

/** Return a name, for example a document's key, that cannot disturb the text around it. */
export function name(text) {
  const parts = shown(text).map(({ text: part, isHidden }) =>
    isHidden ? h("span.hidden-character", { title: "a character that cannot be seen" }, part) : part,
  );
  return h("bdi.name", parts.length ? parts : h("span.quiet", "(empty)"));
}

/** Return a button. */
export function button(text, act, properties = {}) {
  return h(properties.kind ? `button.${properties.kind}` : "button", { type: "button", click: act, ...properties, kind: null }, text);
}

/** Return a link that looks like a button. */
export function buttonLink(text, href, kind = "") {
  return h(kind ? `a.button.${kind}` : "a.button", { href }, text);
}

/** Return a control with its label, and a hint below it. */
export function field(label, control, hint = null, kind = "") {
  control.id ||= newId();
  const described = hint === null ? null : newId();
  if (described) control.setAttribute("aria-describedby", described);
  return h(
    kind ? `div.field.${kind}` : "div.field",
    h("label", { for: control.id }, label),
    control,
    described && h("p.hint", { id: described }, hint),
  );
}

/** Return a check box with its label. */
export function checkBox(label, isChecked, change = null) {
  const box = h("input", { type: "checkbox", checked: isChecked, id: newId(), change });
  return { box, element: h("div.check", box, h("label", { for: box.id }, label)) };
}

/** Return a list of choices: [value, text] each. */
export function choice(options, selected, properties = {}) {
  const list = h("select", properties, options.map(([value, text]) => h("option", { value }, text)));
  list.value = selected;
  return list;
}

/** Return an error as shown to people: what happened, the gateway's message, and the error's code. */
export function problem(error, title = "That did not work") {
  const details = [error.code && h("code", error.code), error.status ? `status ${error.status}` : null];
  const advice = {
    safe: "Nothing was changed; trying again may help.",
    ambiguous: "The change may have been made: check before you repeat it.",
  }[error.retry];
  return h(
    "div.notice.bad",
    { role: "alert" },
    h("h2", title),
    h("p", error.message),
    error.errors?.length > 0 && h("ul", error.errors.map((one) => h("li", h("code", String(one.code ?? "")), " ", one.msg ?? one.message ?? ""))),
    advice && h("p", advice),
    error.code && h(
      "p.quiet",
      details.filter(Boolean).flatMap((one, at) => (at ? [", ", one] : [one])),
      error.requestId && [", request ", h("code", error.requestId)],
    ),
    error.request && requestBar(error.request),
  );
}

/** Return a remark; kind is "good", "bad", or "" for neither. */
export function notice(kind, ...content) {
  return h(kind ? `div.notice.${kind}` : "div.notice", content);
}

/** Return the text that is shown in place of an empty list. */
export function empty(title, ...content) {
  return h("div.empty", h("p.empty-title", title), content);
}

/** Return the request behind something, with its curl command to copy. */
export function requestBar(described, label = "Request") {
  const { pathname, search } = described.url;
  const command = h("code");
  const copy = button("Copy", async () => {
    const isDone = await copied(command.textContent);
    announce(isDone ? "Copied" : "The browser does not allow copying: select the line yourself");
  });
  return h(
    "details.request",
    {
      // The credentials may have changed since.
      toggle: () => (command.textContent = curl(described)),
    },
    h("summary", h("span", label), " ", h("code", `${described.method} ${readable(pathname + search)}`)),
    h("div.command", h("pre", { tabindex: "0", role: "group", "aria-label": "curl command" }, command), copy),
  );
}

/** Return an address in which harmless characters are decoded. */
function readable(text) {
  return text.replaceAll("%22", '"').replaceAll("%2C", ",").replaceAll("%3A", ":").replaceAll("%5B", "[").replaceAll("%5D", "]");
}

/** Put a text on the clipboard; returns whether the browser allowed it. */
export async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Without TLS only pages of this machine may use the clipboard directly.
    const area = h("textarea.aside", { "aria-hidden": "true", readonly: true });
    const before = document.activeElement;
    area.value = text;
    document.body.append(area);
    area.select();
    const isDone = document.execCommand("copy");
    area.remove();
    before?.focus();
    return isDone;
  }
}

let hide = 0;

/** Announce a text: a line at the edge of the page, which screen readers read aloud. */
export function announce(text) {
  const place = document.getElementById("status");
  show(place, h("p", text));
  clearTimeout(hide);
  hide = setTimeout(() => place.replaceChildren(), 6000);
}

/**
 * Ask before something that cannot be undone.
 *
 * @returns a promise of whether to go on.
 */
export function confirm({ title, content = [], action, kind = "danger" }) {
  return new Promise((done) => {
    const id = newId();
    const close = (answer) => {
      dialog.close();
      dialog.remove();
      done(answer);
    };
    const dialog = h(
      "dialog",
      { "aria-labelledby": id, cancel: (event) => (event.preventDefault(), close(false)) },
      h("h2", { id }, title),
      content,
      h("div.actions", button(action, () => close(true), { kind }), button("Cancel", () => close(false), { autofocus: true })),
    );
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Return a table that scrolls by itself on narrow screens. columns: [title, class] each. */
export function table(caption, columns, rows) {
  const body = h("tbody", rows);
  const element = h(
    "div.table",
    { tabindex: "0", role: "region", "aria-label": caption },
    h(
      "table",
      h("caption.aside", caption),
      h("thead", h("tr", columns.map(([title, kind = ""]) => h(kind ? `th.${kind}` : "th", { scope: "col" }, title)))),
      body,
    ),
  );
  return { element, body };
}

/** Return a form that never leaves the page: `submit` is called instead. */
export function form(submit, properties, ...content) {
  return h(
    "form",
    {
      submit: (event) => {
        event.preventDefault();
        submit();
      },
      ...properties,
    },
    content,
  );
}
