// The frame around every page: navigation, addresses, titles, focus, signing in.

import { current, request, signOut, value } from "./api.mjs";
import { h, show } from "./dom.mjs";
import { link, plain, readLink } from "./keys.mjs";
import { button, confirm, name, problem } from "./ui.mjs";
import { theme } from "./theme.mjs";
import { showBuckets } from "./buckets.mjs";
import { showBucket } from "./bucket.mjs";
import { showBatch } from "./batch.mjs";
import { showDesign, showDesigns, showNewDesign } from "./designs.mjs";
import { showDocuments } from "./documents.mjs";
import { showDocument, showNew } from "./document.mjs";
import { showFigures } from "./figures.mjs";
import { showQuery } from "./query.mjs";
import { showSignIn } from "./signin.mjs";
import { showView } from "./view.mjs";

const main = document.getElementById("main");
const side = document.getElementById("side");
const account = document.getElementById("account");

const PLACE = ["buckets", ":bucket", "scopes", ":scope", "collections", ":collection"];

const PAGES = [
  [[], showBuckets],
  [["sign-in"], showSignIn],
  [["figures"], showFigures],
  [["buckets", ":bucket"], showBucket],
  [["buckets", ":bucket", "designs"], showDesigns],
  [["buckets", ":bucket", "designs", ":design"], showDesign],
  [["buckets", ":bucket", "designs", ":design", "views", ":view"], showView],
  [["buckets", ":bucket", "new-design"], showNewDesign],
  [["buckets", ":bucket", "query"], showQuery],
  [[...PLACE, "documents"], showDocuments],
  [[...PLACE, "documents", ":key"], showDocument],
  [[...PLACE, "documents-base64", ":base64"], showDocument],
  [[...PLACE, "new"], showNew],
  [[...PLACE, "batch"], showBatch],
];

function match(names) {
  for (const [pattern, page] of PAGES) {
    if (pattern.length !== names.length) continue;
    if (!pattern.every((part, at) => part.startsWith(":") || part === names[at])) continue;
    const found = {};
    pattern.forEach((part, at) => part.startsWith(":") && (found[part.slice(1)] = names[at]));
    return [page, found];
  }
  return null;
}

// ---- going from page to page -------------------------------------------------------------------------------------

let shown = null; // {hash, leaving: AbortController, hasChanges: a function, place: of its content, once it is open}
let isFirst = true;

async function go() {
  const { hash } = location;
  if (shown !== null && hash === shown.hash) return;
  if (shown?.hasChanges()) {
    const stay = shown.hash;
    history.replaceState(null, "", stay || "#/");
    const isMeant = await confirm({
      title: "Leave without saving?",
      content: h("p", "Your changes have not been saved."),
      action: "Discard changes",
    });
    if (!isMeant) return;
    history.replaceState(null, "", hash || "#/");
  }
  await render(hash);
}

async function render(hash) {
  shown?.leaving.abort();
  const leaving = new AbortController();
  const page = { hash, leaving, hasChanges: () => false, place: null };
  shown = page;
  const address = readLink(hash);
  const found = address && match(address.names);
  const context = {
    ...(found?.[1] ?? {}),
    query: address?.query ?? new URLSearchParams(),
    signal: leaving.signal,
    /** Show the page's head and return the place for its content. */
    open: (head) => open(page, head),
    /** Set the function that returns whether the page has changes that would be lost. */
    guard: (hasChanges) => (page.hasChanges = hasChanges),
    /** Write parameters into the address without opening a new page. */
    note: (query) => {
      const text = String(query);
      page.hash = location.hash.replace(/\?.*$/, "") + (text ? "?" + text : "");
      history.replaceState(null, "", page.hash);
    },
    go: (to) => {
      page.hasChanges = () => false;
      if (location.hash === to) render(to);
      else location.hash = to;
    },
    refresh: () => fillSide(page),
    signIn,
  };
  main.setAttribute("aria-busy", "true");
  fillSide(page, found?.[1] ?? {});
  try {
    if (found === null) {
      const place = context.open({ title: "There is no such page" });
      show(place, h("p", "The console has no page at this address. ", h("a", { href: "#/" }, "Go to the buckets.")));
    } else {
      await found[0](context);
    }
  } catch (error) {
    failed(page, context, error);
  } finally {
    if (shown === page) main.removeAttribute("aria-busy");
  }
}

function failed(page, context, error) {
  if (page.leaving.signal.aborted) return;
  if (error.isAboutCredentials) {
    signIn(error);
    return;
  }
  // A page that failed before it opened must not show its error on the previous page.
  const place = page.place ?? context.open({ title: readLink(page.hash)?.names.at(-1) ?? "Error", crumbs: [["Buckets", "#/"]] });
  if (error.code === undefined) console.error(error);
  show(place, problem(error, error.code === undefined ? "The console failed" : undefined));
}

function signIn(error) {
  const from = shown.hash.startsWith("#/sign-in") ? "" : shown.hash;
  const query = new URLSearchParams();
  if (from) query.set("from", from);
  if (error?.code === "InvalidAuth") query.set("wrong", "1");
  location.replace(`#/sign-in${String(query) && "?" + query}`);
}

function open(page, { title, heading = title, crumbs = [], tabs = null, actions = [] }) {
  const place = h("div", { id: "content" });
  if (page.leaving.signal.aborted) return place;
  page.place = place;
  document.title = `${plain(title)} · couchgateway`;
  const head = h("h1", { tabindex: "-1" }, typeof heading === "string" ? name(heading) : heading);
  const parts = [
    crumbs.length > 0 && h(
      "nav.crumbs",
      { "aria-label": "Where you are" },
      h("ol", crumbs.map(([text, href]) => h("li", h("a", { href }, name(text))))),
    ),
    h("div.head", head, h("div.actions", actions)),
    tabs,
    place,
  ];
  show(main, parts);
  main.removeAttribute("aria-busy");
  if (!isFirst) {
    head.focus({ preventScroll: true });
    scrollTo(0, 0);
  }
  isFirst = false;
  return place;
}

// ---- the sides ---------------------------------------------------------------------------------------------------

let buckets = [];

// On narrow screens the navigation is collapsed until the user opens it.
const narrow = matchMedia("(max-width: 44rem)");
const contents = h("div");
const folded = h("details", { open: !narrow.matches }, h("summary", "Buckets and more"), contents);
side.append(folded);
narrow.addEventListener("change", () => (folded.open = !narrow.matches));

async function fillSide(page, { bucket, scope, collection } = {}) {
  const here = (href, isHere) => ({ href, "aria-current": isHere ? "page" : null });
  const { hash } = page;
  const draw = (scopes) => {
    if (shown !== page) return;
    show(
      contents,
      h("h2", h("a", here("#/", hash === "" || hash === "#/"), "Buckets")),
      h("ul", buckets.map((one) => h(
        "li",
        h("a", here(link("buckets", one), one === bucket && scope === undefined), name(one)),
        one === bucket && scopes.length > 0 && h("ul", scopes.map(({ name: its, collections }) => h(
          "li",
          h("span.scope", name(its)),
          h("ul", collections.map(({ name: last }) => h("li", h(
            "a",
            here(link("buckets", bucket, "scopes", its, "collections", last, "documents"), its === scope && last === collection),
            name(last),
          )))),
        ))),
      ))),
      more(hash, here),
    );
  };
  if (narrow.matches) folded.open = false;
  account.replaceChildren(...who());
  draw(scopesOf.get(bucket) ?? []);
  if (hash.startsWith("#/sign-in")) return;
  try {
    const found = await value(request("GET", "v1/buckets"), page.leaving.signal);
    buckets = found.buckets.map((one) => one.name);
    draw(scopesOf.get(bucket) ?? []);
    if (bucket !== undefined) {
      const listed = await value(request("GET", `v1/buckets/${encodeURIComponent(bucket)}/scopes`), page.leaving.signal);
      scopesOf.set(bucket, listed.scopes);
      draw(listed.scopes);
    }
  } catch {
    // The page itself reports why the buckets cannot be read.
  }
}

const scopesOf = new Map();

let links = null;

/** Return the links to pages that belong to no bucket. */
function more(hash, here) {
  if (links === null) {
    links = {};
    value(request("GET", "", { headers: { Accept: "application/json" } })).then((index) => {
      links = index.links;
      if (shown !== null) fillSide(shown, match(readLink(shown.hash)?.names ?? [])?.[1]);
    }, () => (links = null));
  }
  const { docs, openapi, metrics } = links ?? {};
  return [
    h("h2", "This gateway"),
    h("ul",
      metrics && h("li", h("a", here("#/figures", hash.startsWith("#/figures")), "Figures")),
      docs && h("li", h("a", { href: docs.slice(1) }, "API reference")),
      openapi && h("li", h("a", { href: openapi.slice(1) }, "OpenAPI file")),
    ),
  ];
}

function who() {
  const given = current();
  if (given.kind === "none") return [];
  const text = { basic: given.user, bearer: "token", browser: "the browser's identity" }[given.kind];
  return [
    h("span.user", h("span.aside", "Signed in as "), name(text)),
    button("Sign out", () => {
      signOut();
      buckets = [];
      scopesOf.clear();
      location.hash = "#/sign-in";
    }),
  ];
}

// The address of a page is in the fragment, so this link must not change it.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.querySelector("h1")?.focus();
});
addEventListener("hashchange", go);
addEventListener("beforeunload", (event) => shown?.hasChanges() && event.preventDefault());
document.getElementById("theme").append(theme());
go();
