// One document: read, edit, create and remove it.

import { request, send } from "./api.mjs";
import { attributes } from "./attributes.mjs";
import { conflict } from "./conflict.mjs";
import { download, dumpBlock, lineEnds, withEnds } from "./content.mjs";
import { h, show } from "./dom.mjs";
import { editor } from "./editor.mjs";
import { bytes as size, flags as meaning, fromNow, instant } from "./format.mjs";
import { compact, memberMap, pretty, problemOf, stringOf } from "./json.mjs";
import { byteLength, isWellFormed, link, plain } from "./keys.mjs";
import { asText, BEGINNING_BYTES, Collection, EDITABLE_BYTES, FLAGS } from "./store.mjs";
import { announce, button, choice, confirm, field, form, name, notice, problem, requestBar } from "./ui.mjs";

const LOCKED = "ffffffffffffffff";
const MOST_KEY_BYTES = 250;
const MOST_COLLECTION_KEY_BYTES = 246;
const TYPES = [[String(FLAGS.json), "JSON"], [String(FLAGS.text), "Text"], [String(FLAGS.binary), "Binary"]];

function crumbsOf(here) {
  const crumbs = [["Buckets", "#/"], [here.bucket, link("buckets", here.bucket)]];
  return [...crumbs, [here.isDefault ? "Documents" : `${here.scope}.${here.collection}`, here.link()]];
}

export async function showDocument(context) {
  const here = new Collection(context);
  const key = context.key ?? { base64: context.base64 };
  const title = context.key ?? `base64 ${context.base64}`;
  let held;
  try {
    held = await here.read(key, context.signal);
  } catch (error) {
    if (error.code !== "DocumentNotFound") {
      context.open({ title, crumbs: crumbsOf(here) });
      throw error;
    }
    const place = context.open({ title, crumbs: crumbsOf(here) });
    show(place, notice("", h("p", "There is no document with this key; it may have expired."),
      typeof key === "string" && h("p", h("a.button", { href: link(...here.names, "new") + "?" + new URLSearchParams({ key }) }, "Create it"))), requestBar(here.reading(key)));
    return;
  }
  const place = context.open({ title, crumbs: crumbsOf(here) });
  showHeld(context, here, key, held, place);
}

/** Show a document's content and metadata. */
function showHeld(context, here, key, held, place) {
  const { signal } = context;
  const text = asText(held.bytes, !held.isWhole);
  const again = async () => showHeld(context, here, key, await here.read(key, signal), place);
  const about = aboutOf(held, here, key, signal);
  const file = fileBox(async (chosen) => {
    const isMeant = await confirm({
      title: "Replace the content with the file?",
      content: h("p", `${plain(chosen.name)}, ${size(chosen.size)}, becomes the document's content.`),
      action: "Replace",
    });
    if (isMeant) await store(here.writing(key, { body: chosen, cas: held.cas, flags: about.flags(), expires: about.expires() }));
  });
  const problems = h("div");

  async function store(described) {
    problems.replaceChildren();
    try {
      await here.carryOut(key, described, signal);
      context.guard(() => false);
      await again();
      announce("Saved.");
    } catch (error) {
      await refused(error, described.body);
    }
  }

  async function refused(error, mine) {
    if (signal.aborted) return;
    const isConflict = error.code === "CasMismatch" || (error.code === "DocumentNotFound" && error.status === 404);
    if (!isConflict || typeof mine !== "string") {
      show(problems, problem(error, isConflict ? "Changed meanwhile: read it again" : "Not saved"));
      return;
    }
    let theirs = null;
    try {
      theirs = await here.read(key, signal);
    } catch (failure) {
      if (failure.code !== "DocumentNotFound") {
        show(problems, problem(failure, "Changed meanwhile, and it cannot be read again"));
        return;
      }
    }
    const flags = about.flags();
    const their = theirs && asText(theirs.bytes, !theirs.isWhole);
    const shown = conflict({
      theirs: theirs && (their ?? `(${size(theirs.bytes.length)} that are not text)`),
      theirCas: theirs?.cas,
      mine,
      takeTheirs: () => {
        context.guard(() => false);
        if (theirs === null) context.go(here.link());
        else showHeld(context, here, key, theirs, place);
      },
      keepMine: () => {
        show(place, problems);
        store(here.writing(key, { body: mine, cas: theirs?.cas ?? null, flags, expires: about.expires() }));
      },
      editMine: () => showHeld(context, here, key, { ...theirs, bytes: new TextEncoder().encode(mine), isWhole: true, unsaved: true }, place),
    });
    show(place, shown.element);
    shown.focus();
  }

  async function remove() {
    const isMeant = await confirm({ title: "Delete this document?", content: h("p", name(typeof key === "string" ? key : key.base64)), action: "Delete" });
    if (!isMeant) return;
    try {
      await here.carryOut(key, here.removing(key, held.cas), signal);
      context.guard(() => false);
      announce("Deleted.");
      context.go(here.link());
    } catch (error) {
      if (!signal.aborted) show(problems, problem(error, error.code === "CasMismatch" ? "Changed meanwhile: it was not deleted" : "Not deleted"));
    }
  }

  const fileName = (typeof key === "string" ? plain(key) : key.base64).replace(/[^\w.-]+/g, "_").slice(0, 80) || "document";
  const whole = async () => {
    if (held.isWhole) return new Blob([held.bytes]);
    return (await send(request("GET", here.documentPath(key)), signal)).blob();
  };
  const common = [
    button("Download", async () => download(await whole(), fileName)),
    file.button,
    button("Delete", remove, { kind: "danger" }),
  ];

  if (text === null || !held.isWhole) {
    context.guard(() => false);
    const shownBytes = held.bytes.subarray(0, BEGINNING_BYTES);
    const beginning = held.isWhole ? null : asText(shownBytes, true);
    show(
      place,
      problems,
      h("div.document",
        h("div.content",
          notice("", h("p", held.isWhole
            ? `${size(held.bytes.length)} that are not text. Replace them with a file, or download them.`
            : `This document has more than ${size(EDITABLE_BYTES)}, so only its beginning is shown: download it to see all of it, and replace it with a file to change it.`)),
          beginning === null ? dumpBlock(shownBytes) : h("pre.beginning", { tabindex: "0", role: "group", "aria-label": "Beginning of the document" }, beginning),
          h("div.actions", common),
          requestBar(held.described),
        ),
        about.element,
      ),
      file.box,
    );
    return;
  }

  const ends = lineEnds(text);
  const isJson = () => about.flags() === FLAGS.json || (held.type.startsWith("application/json") && about.flags() === held.flags);
  const state = h("p.state", { role: "status" });
  const save = button("Save", () => submit(), { kind: "primary" });
  const undo = button("Undo changes", () => showHeld(context, here, key, { ...held, ...(held.original ?? {}), unsaved: false }, place));
  const area = editor({ label: "Content", text, changed: () => judge(), isJson, rows: 14 });
  const original = area.text;
  const hasChanges = () => Boolean(held.unsaved) || area.text !== original || about.hasChanges();
  context.guard(hasChanges);

  function judge() {
    const isChanged = hasChanges();
    save.disabled = !isChanged;
    undo.disabled = !isChanged;
    judgeText(state, area, isJson());
  }

  async function submit() {
    if (!hasChanges()) return;
    if (!(await isStorable(area.text, isJson()))) return;
    save.disabled = true;
    const body = withEnds(area.text, ends);
    await store(here.writing(key, { body, cas: held.cas, flags: about.flags(), expires: about.expires() }));
    judge();
  }

  area.element.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key === "s") {
      event.preventDefault();
      submit();
    }
  });
  about.changed = () => (area.redraw(), judge());
  show(
    place,
    problems,
    held.cas === LOCKED && notice("", h("p", "Another client has locked this document: it cannot be changed until the lock is released, or expires.")),
    ends === "mixed" && notice("", h("p", "This document has line ends of several kinds. Saving turns all of them into line feeds.")),
    h("div.document",
      h("div.content",
        h("div.toolbar", button("Format", () => reshape(pretty)), button("Compact", () => reshape(compact)), state),
        area.element,
        h("div.actions", save, undo, common),
        requestBar(held.described, "Read"),
        requestBar(here.writing(key, { body: "…", cas: held.cas, flags: held.flags }), "Save"),
      ),
      about.element,
    ),
    file.box,
  );
  judge();

  function reshape(how) {
    const found = problemOf(area.text);
    if (found === null) area.replace(how(area.text));
    else area.goTo(found.offset);
  }
}

/** Show whether a text is JSON where it should be, and its size. */
function judgeText(state, area, isJson) {
  const found = isJson ? problemOf(area.text) : null;
  const about = `${size(byteLength(area.text))}`;
  state.classList.toggle("bad", found !== null);
  if (found === null) show(state, isJson ? "Valid JSON, " : "", about);
  else show(state, `Line ${found.line}, column ${found.column}: ${found.message} `, button("Go there", () => area.goTo(found.offset), { kind: "quiet" }));
}

/** Return whether a text may be stored; asks the user if the text does not match its type. */
async function isStorable(text, isJson) {
  if (!isWellFormed(text)) {
    announce("The text has half a character (a lone surrogate), which cannot be stored.");
    return false;
  }
  const found = isJson ? problemOf(text) : null;
  if (found === null) return true;
  return confirm({
    title: "This is not JSON",
    content: h("p", `Line ${found.line}, column ${found.column}: ${found.message}. Programs that expect JSON will fail on it.`),
    action: "Save anyway",
  });
}

// ---- beside the content ------------------------------------------------------------------------------------------

/** Return controls for a document's type. */
function typeControls(given, changed) {
  const isCommon = TYPES.some(([value]) => value === String(given));
  const number = h("input", { inputmode: "numeric", pattern: "[0-9]{1,10}", value: String(given), input: () => changed(), "aria-label": "Flags, a decimal number" });
  const list = choice([...TYPES, ["other", "Other flags"]], isCommon ? String(given) : "other", {
    change: () => ((number.hidden = list.value !== "other"), changed()),
  });
  number.hidden = isCommon;
  return { element: [field("Type", list, isCommon ? null : `flags ${given}: ${meaning(given)}`), number], flags: () => Number(list.value === "other" ? number.value : list.value) };
}

/** Return controls for a document's expiry; `now` is the present one in milliseconds, or null. */
function expiryControls(now, isNew, changed) {
  const length = h("input", { placeholder: "1h30m", "aria-label": "Duration, such as 90s or 1h30m", hidden: true, input: () => changed() });
  const date = h("input", { type: "datetime-local", step: "1", "aria-label": "Date and time", hidden: true, input: () => changed() });
  const first = isNew ? ["keep", "never, or the collection's default"] : ["keep", now === null ? "never" : `unchanged: ${fromNow(now, Date.now())}`];
  const options = [first, ["after", "after …"], ["at", "at …"]];
  if (now !== null) options.push(["never", "never"]);
  const list = choice(options, "keep", {
    change: () => {
      length.hidden = list.value !== "after";
      date.hidden = list.value !== "at";
      changed();
    },
  });
  return {
    element: [field("Expires", list, now === null ? null : instant(now)), length, date],
    expires: () => {
      if (list.value === "after") return length.value.trim() || null;
      if (list.value === "at") return date.value ? new Date(date.value).toUTCString() : null;
      return list.value === "never" ? "0" : null;
    },
  };
}

function aboutOf(held, here, key, signal) {
  const about = { changed: () => {} };
  const type = typeControls(held.flags, () => about.changed());
  const expiry = expiryControls(held.expiry, false, () => about.changed());
  const size_ = h("dd", held.isWhole ? size(held.bytes.length) : `more than ${size(held.bytes.length)}`);
  const modified = h("dd", "–");
  const extra = h("div");
  about.flags = type.flags;
  about.expires = expiry.expires;
  about.hasChanges = () => type.flags() !== held.flags || expiry.expires() !== null;
  about.element = h(
    "aside.about",
    { "aria-label": "About this document" },
    h("dl",
      h("div", h("dt", "CAS"), h("dd", h("code.cas", held.cas))),
      h("div", h("dt", "Size"), size_),
      h("div", h("dt", "Changed"), modified),
    ),
    type.element,
    expiry.element,
    extra,
  );
  attributes({ here, key, held, signal, place: extra, known: (found) => {
    const changed = Number(stringOf(found.get("last_modified")) ?? NaN) * 1000;
    if (Number.isFinite(changed)) show(modified, h("time", { datetime: new Date(changed).toISOString(), title: instant(changed) }, fromNow(changed, Date.now())));
    if (found.has("value_bytes")) size_.textContent = size(Number(found.get("value_bytes")));
  } });
  return about;
}

/** Return a button that lets people choose a file. */
function fileBox(chosen) {
  const box = h("input", { type: "file", hidden: true, "aria-label": "File", change: () => box.files[0] && chosen(box.files[0]).finally(() => (box.value = "")) });
  return { box, button: button("Replace with a file", () => box.click()) };
}

// ---- a new one ---------------------------------------------------------------------------------------------------

export async function showNew(context) {
  const here = new Collection(context);
  const { signal } = context;
  const place = context.open({ title: `New document in ${here.title}`, heading: "New document", crumbs: crumbsOf(here) });
  const most = here.isDefault ? MOST_KEY_BYTES : MOST_COLLECTION_KEY_BYTES;
  const problems = h("div");
  const state = h("p.state", { role: "status" });
  const keyState = h("p.hint", { role: "status" });
  const keyBox = h("input", { required: true, spellcheck: "false", autocomplete: "off", autocapitalize: "none", value: context.query.get("key") ?? "", input: () => judge() });
  const type = typeControls(FLAGS.json, () => (area.redraw(), judge()));
  const expiry = expiryControls(null, true, () => judge());
  const isJson = () => type.flags() === FLAGS.json;
  const area = editor({ label: "Content", text: "{\n  \n}", changed: () => judge(), isJson, rows: 12 });
  const create = h("button.primary", { type: "submit" }, "Create");

  function judge() {
    const many = byteLength(keyBox.value);
    keyState.textContent = many > most ? `The key has ${many} bytes; the limit is ${most}.` : `${many} of ${most} bytes`;
    keyState.classList.toggle("bad", many > most);
    judgeText(state, area, isJson());
  }

  async function submit() {
    const key = keyBox.value;
    if (!(await isStorable(area.text, isJson())) || !(await isStorable(key, false))) return;
    await store(key, { body: area.text, cas: null, flags: type.flags(), expires: expiry.expires() });
  }

  async function store(key, options) {
    problems.replaceChildren();
    create.disabled = true;
    try {
      await here.carryOut(key, here.writing(key, options), signal);
      announce("Created.");
      context.go(here.link(key));
    } catch (error) {
      if (signal.aborted) return;
      if (error.code === "DocumentExists" || error.code === "CasMismatch") await exists(key, options);
      else show(problems, problem(error, "Not created"));
    } finally {
      create.disabled = false;
    }
  }

  async function exists(key, options) {
    const theirs = await here.read(key, signal);
    const back = [...place.childNodes];
    const shown = conflict({
      theirs: asText(theirs.bytes, !theirs.isWhole) ?? `(${size(theirs.bytes.length)} that are not text)`,
      theirCas: theirs.cas,
      mine: options.body,
      takeTheirs: () => context.go(here.link(key)),
      keepMine: () => (show(place, back), store(key, { ...options, cas: theirs.cas })),
      editMine: () => (show(place, back), keyBox.focus()),
    });
    show(place, shown.element);
    shown.focus();
  }

  context.guard(() => keyBox.value !== (context.query.get("key") ?? "") || area.text !== "{\n  \n}");
  show(
    place,
    problems,
    form(submit, { class: "document" },
      h("div.content", field("Key", keyBox), keyState, h("div.toolbar", h("span.label", "Content"), state), area.element, h("div.actions", create)),
      h("aside.about", { "aria-label": "About the new document" }, type.element, expiry.element),
    ),
    requestBar(here.writing("KEY", { body: "…", cas: null, flags: FLAGS.json })),
  );
  judge();
  keyBox.focus();
}
