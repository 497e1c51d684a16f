// Design documents: their views, an editor for the functions.

import { request, send, text as answerText } from "./api.mjs";
import { h, show } from "./dom.mjs";
import { editor } from "./editor.mjs";
import { count } from "./format.mjs";
import { elements, memberMap, members, stringOf } from "./json.mjs";
import { link, path } from "./keys.mjs";
import { tabs } from "./tabs.mjs";
import { announce, button, buttonLink, checkBox, choice, confirm, empty, field, form, name, problem, requestBar, table } from "./ui.mjs";

const DEV = "dev_";
const REDUCES = [["", "none"], ["_count", "_count"], ["_sum", "_sum"], ["_stats", "_stats"], ["own", "custom function"]];
const MAP = "function (doc, meta) {\n  emit(meta.id, null);\n}";

function crumbs(bucket, more = []) {
  return [["Buckets", "#/"], [bucket, link("buckets", bucket)], ...more];
}

/** Return the views of a design document's text as [{name, map, reduce, rest}]; rest are members kept as they are. */
export function readViews(design) {
  const views = memberMap(design).get("views");
  if (views === undefined) return [];
  return members(views).map(([its, text]) => {
    const found = members(text);
    const held = new Map(found);
    return {
      name: its,
      map: stringOf(held.get("map")) ?? "",
      reduce: stringOf(held.get("reduce")) ?? "",
      rest: found.filter(([member]) => member !== "map" && member !== "reduce"),
    };
  });
}

/** Return a design document with other views; all its other members stay as they are written. */
export function writeViews(design, views) {
  const member = ([its, text]) => `${JSON.stringify(its)}:${text}`;
  const written = views.map(({ name: its, map, reduce, rest }) => {
    const parts = [["map", JSON.stringify(map)], ...(reduce ? [["reduce", JSON.stringify(reduce)]] : []), ...rest];
    return `${JSON.stringify(its)}:{${parts.map(member).join(",")}}`;
  });
  const all = members(design);
  const text = `{${written.join(",")}}`;
  const at = all.findIndex(([its]) => its === "views");
  if (at < 0) all.push(["views", text]);
  else all[at][1] = text;
  return `{${all.map(member).join(",")}}`;
}

export async function showDesigns({ bucket, open, signal }) {
  const asked = request("GET", path("v1", "buckets", bucket, "designs"));
  const designs = elements(memberMap(await answerText(asked, signal)).get("designs")).map((one) => {
    const held = memberMap(one);
    return { name: stringOf(held.get("name")), views: readViews(held.get("design")) };
  });
  const place = open({
    title: `Views of ${bucket}`,
    heading: "Views",
    crumbs: crumbs(bucket),
    tabs: tabs(bucket, "Views"),
    actions: buttonLink("New design document", link("buckets", bucket, "new-design"), "primary"),
  });
  if (designs.length === 0) {
    show(place, empty("This bucket has no design documents.", h("p", "A design document holds views: functions that index documents by their content.")), requestBar(asked));
    return;
  }
  const rows = designs.flatMap(({ name: its, views }) => views.length
    ? views.map((view, at) => h(
      "tr",
      h("td", at === 0 ? h("a", { href: link("buckets", bucket, "designs", its) }, name(its)) : null),
      h("th", { scope: "row" }, h("a", { href: link("buckets", bucket, "designs", its, "views", view.name) }, name(view.name))),
      h("td", view.reduce ? h("code", view.reduce.startsWith("_") ? view.reduce : "function") : h("span.quiet", "none")),
    ))
    : [h("tr", h("td", h("a", { href: link("buckets", bucket, "designs", its) }, name(its))), h("td.quiet", { colspan: "2" }, "no views"))]);
  show(
    place,
    table("Views", [["Design document"], ["View"], ["Reduce"]], rows).element,
    h("p.quiet", count(designs.length), designs.length === 1 ? " design document. " : " design documents. ", "Those whose names begin with dev_ are in development: publish them when they are ready."),
    requestBar(asked),
  );
}

export async function showDesign(context) {
  const { bucket, design } = context;
  const asked = request("GET", path("v1", "buckets", bucket, "designs", design));
  const text = await answerText(asked, context.signal);
  edit(context, { its: design, text, asked });
}

export function showNewDesign(context) {
  edit(context, { its: null, text: "{}", asked: null });
}

function edit(context, { its, text, asked }) {
  const { bucket, signal } = context;
  const isNew = its === null;
  const place = context.open({
    title: isNew ? `New design document in ${bucket}` : its,
    heading: isNew ? "New design document" : its,
    crumbs: crumbs(bucket, [["Views", link("buckets", bucket, "designs")]]),
  });
  const problems = h("div");
  const list = h("div");
  const blocks = [];
  const save = h("button.primary", { type: "submit" }, isNew ? "Create" : "Save");
  let isChanged = false;
  const changed = () => (isChanged = true);
  context.guard(() => isChanged);
  const nameBox = h("input", { required: true, pattern: "[^\\/]+", title: "no slash", spellcheck: "false", autocomplete: "off", autocapitalize: "none", input: changed });
  const { box: devBox, element: devElement } = checkBox("In development: its name begins with dev_", true);

  function add(view, isFresh = false) {
    const nameOf = h("input", { value: view.name, required: true, spellcheck: "false", autocomplete: "off", autocapitalize: "none", input: changed });
    const map = editor({ label: "Map function", text: view.map, changed, isJson: () => false, rows: 7 });
    const isOwn = view.reduce !== "" && !REDUCES.some(([value]) => value === view.reduce);
    const reduceText = editor({ label: "Reduce function", text: isOwn ? view.reduce : "function (keys, values, rereduce) {\n  return values.length;\n}", changed, isJson: () => false, rows: 5 });
    reduceText.element.hidden = !isOwn;
    const reduce = choice(REDUCES, isOwn ? "own" : view.reduce, { change: () => ((reduceText.element.hidden = reduce.value !== "own"), changed()) });
    const block = {
      element: h(
        "section.panel",
        { "aria-label": view.name ? `View ${view.name}` : "New view" },
        h("div.row.between", field("View", nameOf), field("Reduce", reduce), h("div.actions",
          !isNew && !isFresh && buttonLink("Query", link("buckets", bucket, "designs", its, "views", view.name)),
          button("Remove", () => {
            blocks.splice(blocks.indexOf(block), 1);
            block.element.remove();
            changed();
            more.focus();
          }, { "aria-label": `Remove the view ${view.name || "without a name"}` }),
        )),
        h("span.label", "Map"),
        map.element,
        reduceText.element,
      ),
      read: () => ({ name: nameOf.value, map: map.text, reduce: reduce.value === "own" ? reduceText.text : reduce.value, rest: view.rest }),
      focus: () => nameOf.focus(),
    };
    blocks.push(block);
    list.append(block.element);
    return block;
  }

  async function submit() {
    const wanted = isNew ? (devBox.checked && !nameBox.value.startsWith(DEV) ? DEV : "") + nameBox.value : its;
    const views = blocks.map((one) => one.read());
    const names = views.map((one) => one.name);
    const twice = names.find((one, at) => names.indexOf(one) !== at);
    if (twice !== undefined) {
      show(problems, problem(new Error(`Two views have the name ${twice}.`), "Not saved"));
      return;
    }
    await change(writing(wanted, writeViews(text, views)), "Saved.", () => context.go(link("buckets", bucket, "designs", wanted)));
  }

  function writing(wanted, body) {
    return request("PUT", path("v1", "buckets", bucket, "designs", wanted), { headers: { "Content-Type": "application/json" }, body, bodyName: "design.json" });
  }

  async function change(described, done, then) {
    problems.replaceChildren();
    save.disabled = true;
    try {
      await send(described, signal);
      isChanged = false;
      announce(done);
      then();
    } catch (error) {
      if (!signal.aborted) show(problems, problem(error, "The change failed"));
    } finally {
      save.disabled = false;
    }
  }

  const publish = () => change(
    request("POST", path("v1", "buckets", bucket, "designs", its.slice(DEV.length), "publish")),
    `Published as ${its.slice(DEV.length)}.`,
    () => context.go(link("buckets", bucket, "designs", its.slice(DEV.length))),
  );
  const remove = async () => {
    const isMeant = await confirm({ title: `Delete the design document ${its}?`, content: h("p", "Its views and their indexes are removed."), action: "Delete" });
    if (isMeant) await change(request("DELETE", path("v1", "buckets", bucket, "designs", its)), "Deleted.", () => context.go(link("buckets", bucket, "designs")));
  };
  const more = button("Add a view", () => (changed(), add({ name: "", map: MAP, reduce: "", rest: [] }, true).focus()));

  for (const view of readViews(text)) add(view);
  if (isNew) add({ name: "", map: MAP, reduce: "", rest: [] });
  show(
    place,
    problems,
    form(submit, {},
      isNew && h("div.row.top", field("Name", nameBox), devElement),
      list,
      h("div.actions",
        save,
        more,
        !isNew && its.startsWith(DEV) && button("Publish", publish),
        !isNew && button("Delete", remove, { kind: "danger" }),
      ),
    ),
    asked && requestBar(asked, "Read"),
    !isNew && requestBar(writing(its, text), "Save"),
  );
  if (isNew) nameBox.focus();
}
