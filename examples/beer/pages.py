"""The pages, as trees of twisted.web.template's tags, which escape whatever is put into them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from twisted.web.template import Tag, tags

from examples.beer.kinds import BEER, BREWERY, KINDS, UNSHOWABLE, Field, Form, Kind, as_text, is_web_address
from examples.beer.store import Document, Listing, Position

TITLE = "Beer"

_NOTICES = {
    "created": "It was created.",
    "saved": "Your changes were saved.",
    "same": "Nothing was different, so nothing was changed.",
    "deleted": "It was deleted.",
    "liked": "Thank you: your like was counted.",
}


@dataclass(frozen=True)
class Page:
    """An answer for people.

    :ivar current: path of the entry of the navigation that this page is.
    :ivar location: where the browser is sent instead; there is no content then.
    """

    title: str
    content: Sequence[Any]
    status: int = 200
    current: str = ""
    location: str = ""
    headers: dict[str, str] = field(default_factory=dict)


def text(value: Any) -> str:
    """Return any stored value as text that can be shown."""
    return UNSHOWABLE.sub("\ufffd", as_text(value))


def address(kind: Kind, key: str | None = None, action: str = "", **query: str) -> str:
    """Return the path of a list, of a document, or of what can be done with a document.

    A key is one segment of the path: what browsers or routes would take for more is written with a tilde.
    """
    path = f"/{kind.name}"
    if key is not None:
        plain = key.replace("~", "~7E").replace("/", "~2F").replace("\\", "~5C")
        if plain.startswith("."):
            plain = f"~2E{plain[1:]}"
        path += f"/{quote(plain, safe='~')}"
    if action:
        path += f"/{action}"
    return f"{path}?{urlencode(query)}" if query else path


def key_of(segment: str) -> str:
    """Return the key that :func:`address` made a segment of."""
    for written, char in (("~2E", "."), ("~2F", "/"), ("~5C", "\\"), ("~7E", "~")):
        segment = segment.replace(written, char)
    return segment


def new_address(kind: Kind, **query: str) -> str:
    """Return the path of the form for a new document."""
    return f"/new/{kind.name}" + (f"?{urlencode(query)}" if query else "")


def redirect(path: str, done: str = "") -> Page:
    """Send the browser on, by GET."""
    return Page("", (), 303, location=f"{path}?{urlencode({'done': done})}" if done else path)


def layout(page: Page, version: str, done: str) -> Tag:
    """Return the whole document.

    :param version: changes when the files in static/ do.
    :param done: what was just done, one of the words that :func:`redirect` took.
    """
    entries = [(kind.title, address(kind)) for kind in KINDS.values()]
    entries += [(f"New {kind.name}", new_address(kind)) for kind in KINDS.values()]
    notice = _NOTICES.get(done)
    return tags.html(
        tags.head(
            tags.meta(charset="utf-8"),
            tags.title(text(f"{page.title} – {TITLE}")),
            tags.meta(name="viewport", content="width=device-width, initial-scale=1"),
            tags.link(rel="icon", href=f"/static/icon.svg?{version}"),
            tags.link(rel="stylesheet", href=f"/static/style.css?{version}"),
            tags.script(src=f"/static/app.js?{version}", defer="defer"),
        ),
        tags.body(
            tags.a("Skip to the content", href="#content", class_="skip"),
            tags.header(
                tags.a(TITLE, href="/", class_="name"),
                tags.nav(
                    tags.ul(
                        tags.li(tags.a(label, href=path, **_current(path == page.current)))
                        for label, path in entries
                    ),
                    **{"aria-label": "Main"},
                ),
            ),
            Tag("main")(
                tags.p(notice, role="status", class_="notice") if notice else "",
                *page.content,
                id="content",
                tabindex="-1",
            ),
            tags.p(id="live", role="status", class_="hidden"),
            tags.footer(tags.p("An example of couchgateway: Klein on txcouchbase.")),
        ),
        lang="en",
    )


def list_page(kind: Kind, listing: Listing, *, search: str = "", first: bool = True) -> Page:
    """Return a page of a list, or what a search found."""
    count = len(listing.rows)
    if not search:
        found = f"No {kind.plural} yet." if first and not count else ""
    elif listing.more:
        found = f"{count} of the {kind.plural} with “{search}”; type more for fewer."
    else:
        found = f"{count} {kind.name if count == 1 else kind.plural} with “{search}”."
    return Page(
        kind.title if not search else f"{kind.title} with “{search}”",
        (
            tags.h1(kind.title),
            tags.form(
                tags.label(f"Search {kind.plural} by the words of their names", for_="q"),
                tags.div(
                    tags.input(
                        id="q", name="q", type="search", value=search, maxlength="60", autocomplete="off"
                    ),
                    tags.button("Search", type="submit"),
                    class_="line",
                ),
                method="get",
                action=address(kind),
                role="search",
                id="search",
            ),
            tags.section(
                tags.p(found, id="found") if found else "",
                _table(kind, listing, f"{kind.title}, by name") if count else "",
                _all_link(kind) if search else _pager(address(kind), listing.following, first),
                id="results",
            ),
        ),
        current=address(kind),
    )


def show_page(
    document: Document,
    kind: Kind,
    token: str,
    *,
    likes: int = 0,
    brewery: str | None = None,
    beers: Listing | None = None,
    total: int = 0,
    first: bool = True,
) -> Page:
    """Return the page of one document; for a brewery, with a page of its beers."""
    value, key = document.value, document.key
    known = []
    for one in kind.fields[1:]:
        shown = _shown(one, value, brewery)
        if shown is not None:
            known.append(tags.div(tags.dt(one.label), tags.dd(shown)))
    content: list[Any] = [
        tags.h1(tags.bdi(text(document.name))),
        tags.dl(known) if known else tags.p("Nothing else is known about it."),
    ]
    if kind is BEER:
        content.append(
            tags.form(
                _token(token),
                tags.p(_likes(likes), id="likes"),
                tags.button("Like", type="submit"),
                method="post",
                action=address(BEER, key, "like"),
                id="like",
                class_="line",
            )
        )
    content.append(
        tags.p(
            tags.a("Edit", href=address(kind, key, "edit"), class_="button"),
            " ",
            tags.a("Delete …", href=address(kind, key, "delete"), class_="button"),
        )
    )
    if beers is not None:
        content.append(
            tags.section(
                tags.h2(f"Beers ({total})", id="beers"),
                _table(BEER, beers, f"Beers of {text(document.name)}, by name", brewery=False) if beers.rows
                else tags.p("It has no beers yet."),
                _pager(address(kind, key), beers.following, first),
                tags.p(tags.a("Add a beer", href=new_address(BEER, brewery=key), class_="button")),
                **{"aria-labelledby": "beers"},
            )
        )  # fmt: skip
    return Page(text(document.name), content)


def form_page(
    form: Form,
    token: str,
    choices: Sequence[tuple[str, str]],
    *,
    key: str | None = None,
    cas: int = 0,
    status: int = 200,
    before: Sequence[Any] = (),
    title: str = "",
    submit: str = "",
) -> Page:
    """Return the form for a new document, or for the one with this key.

    :param choices: key and name of breweries to choose from.
    :param cas: version of the document that the form was made from.
    :param before: what stands above the fields.
    """
    kind = form.kind
    if not title:
        title = f"New {kind.name}" if key is None else f"Edit {form.texts['name'] or kind.name}"
    path = new_address(kind) if key is None else address(kind, key, "edit")
    back = address(kind) if key is None else address(kind, key)
    return Page(
        f"Error: {title}" if form.errors else title,
        (
            tags.h1(text(title)),
            _summary(form) if form.errors else "",
            *before,
            tags.form(
                _token(token),
                _cas(cas) if key is not None else "",
                [_field(one, form, choices) for one in kind.fields],
                tags.p(
                    tags.button(submit or ("Create" if key is None else "Save"), type="submit"),
                    " ",
                    tags.a("Cancel", href=back, class_="button"),
                ),
                method="post",
                action=path,
                novalidate="novalidate",  # this page says more, and says it next to the fields
            ),
        ),
        status,
        current=path,
    )


def conflict_page(
    form: Form, stored: Document, changed: Sequence[Field], names: dict[str, str], token: str,
    choices: Sequence[tuple[str, str]],
) -> Page:  # fmt: skip
    """Return both versions, and the form with the user's, to be saved over the stored one or not.

    :param changed: the fields that differ.
    :param names: of the breweries that the versions name.
    """
    kind, now = form.kind, stored.value

    def cell(head: str, one: Field, value: Any) -> Tag:
        shown = text(value)
        return _cell(head, names.get(shown, shown) if one.control == "brewery" else shown or tags.em("empty"))

    heads = ("Field", "Stored now", "Yours")
    before = (
        tags.div(
            tags.p(
                f"While you were editing, somebody else saved this {kind.name}. Nothing of yours was "
                "stored yet. Compare the two versions and decide:"
            ),
            tags.table(
                tags.caption("What differs"),
                tags.thead(tags.tr(tags.th(head, scope="col") for head in heads)),
                tags.tbody(
                    tags.tr(
                        tags.th(one.label, scope="row"),
                        cell(heads[1], one, now.get(one.name)),
                        cell(heads[2], one, form.values.get(one.name)),
                    )
                    for one in changed
                ),
                id="versions",
            ),
            tags.p(
                tags.a(
                    "Keep the stored version",
                    href=address(kind, stored.key),
                    class_="button",
                    id="keep-stored",
                ),
                " or change yours below as you like, and save it over the stored one.",
            ),
            role="alert",
            class_="problem",
            tabindex="-1",
            autofocus="autofocus",
        ),
    )
    return form_page(
        form, token, choices, key=stored.key, cas=stored.cas, status=409, before=before,
        title=f"Somebody else changed {stored.name}", submit="Save my version",
    )  # fmt: skip


def delete_page(kind: Kind, document: Document, token: str, *, changed: bool = False) -> Page:
    """Ask whether to delete a document.

    :param changed: it was to be deleted, but is another version now.
    """
    rows = [
        tags.div(tags.dt(one.label), tags.dd(text(document.value[one.name])))
        for one in kind.fields
        if one.control != "brewery" and as_text(document.value.get(one.name))
    ]
    return Page(
        f"Delete {text(document.name)}?",
        (
            tags.h1("Delete ", tags.bdi(text(document.name)), "?"),
            problem(
                f"Somebody changed this {kind.name} after you were asked, so it was not deleted. "
                "This is what it says now:"
            )
            if changed
            else "",
            tags.dl(rows),
            tags.form(
                _token(token),
                _cas(document.cas),
                tags.p("This cannot be undone."),
                tags.button("Delete", type="submit", class_="danger"),
                " ",
                tags.a("Cancel", href=address(kind, document.key), class_="button"),
                method="post",
                action=address(kind, document.key, "delete"),
            ),
        ),
        409 if changed else 200,
    )


def has_beers_page(document: Document, beers: Sequence[Any], total: int) -> Page:
    """Say why a brewery is not deleted."""
    name = text(document.name)
    more = total - len(beers)
    return Page(
        f"{name} has beers",
        (
            tags.h1(tags.bdi(name), " was not deleted"),
            problem(
                f"It still has {total} {'beer' if total == 1 else 'beers'}. "
                "Delete them, or give them another brewery, and then delete the brewery."
            ),
            tags.ul(
                tags.li(tags.a(tags.bdi(text(row.value["name"])), href=address(BEER, row.docid)))
                for row in beers
            ),
            tags.p(f"… and {more} more.") if more > 0 else "",
            tags.p(tags.a("Back to the brewery", href=address(BREWERY, document.key), class_="button")),
        ),
        409,
    )


def problem_page(
    status: int,
    title: str,
    happened: str,
    todo: str,
    links: Sequence[tuple[str, str]] = (),
    headers: dict[str, str] | None = None,
) -> Page:
    """Say what went wrong, and what to do.

    :param links: label and path of where to go.
    """
    links = links or [(f"All {kind.plural}", address(kind)) for kind in KINDS.values()]
    return Page(
        title,
        (
            tags.h1(title),
            tags.p(happened),
            tags.p(todo),
            tags.ul(tags.li(tags.a(label, href=path)) for label, path in links),
        ),
        status,
        headers=headers or {},
    )


def problem(words: str) -> Tag:
    """Return a box that says what went wrong."""
    return tags.p(words, role="alert", class_="problem")


def see_also(label: str, path: str) -> Tag:
    """Return a line with a link."""
    return tags.p(tags.a(label, href=path))


# ---- parts ---------------------------------------------------------------------------------------


def _current(is_current: bool) -> dict[str, str]:
    return {"aria-current": "page"} if is_current else {}


def _token(token: str) -> Tag:
    return tags.input(type="hidden", name="token", value=token)


def _cas(cas: int) -> Tag:
    return tags.input(type="hidden", name="cas", value=str(cas))


def _likes(count: int) -> str:
    return (
        "Nobody likes it yet."
        if not count
        else f"{count} {'person likes' if count == 1 else 'people like'} it."
    )


def _shown(one: Field, document: dict[str, Any], brewery: str | None) -> Any:
    """Return what a field of a document looks like, ``None`` if there is nothing."""
    value = document.get(one.name)
    shown = text(value)
    if not shown or (one.name == "upc" and not shown.strip("0")):
        # Many beers of the sample have the bar code 0: they have none.
        return None
    if one.control == "brewery":
        if brewery is None:
            return f"{shown} (there is no such brewery)"
        return tags.a(tags.bdi(text(brewery)), href=address(BREWERY, shown))
    if one.control == "url" and is_web_address(value):
        return tags.a(shown, href=shown, rel="noopener nofollow ugc")
    if one.control == "textarea":
        return [[line, tags.br] for line in shown.split("\n")]
    return shown


def _table(kind: Kind, listing: Listing, caption: str, brewery: bool = True) -> Tag:
    if kind is BEER:
        heads = ["Name", *(["Brewery"] if brewery else []), "Style", "Alcohol", "Likes"]
    else:
        heads = ["Name", "City", "Country"]
    return tags.table(
        tags.caption(caption),
        tags.thead(tags.tr(tags.th(head, scope="col") for head in heads)),
        tags.tbody(_row(kind, row, listing, brewery) for row in listing.rows),
    )


def _row(kind: Kind, row: Any, listing: Listing, brewery: bool) -> Tag:
    value = row.value
    cells = [tags.th(tags.a(tags.bdi(text(value["name"])), href=address(kind, row.docid)), scope="row")]
    if kind is BREWERY:
        cells += [_cell(head, text(value.get(head.lower()))) for head in ("City", "Country")]
        return tags.tr(cells)
    if brewery:
        key = value.get("brewery")
        name = listing.breweries.get(key) if isinstance(key, str) else None
        link = tags.a(tags.bdi(text(name)), href=address(BREWERY, key)) if name is not None else text(key)
        cells.append(_cell("Brewery", link))
    strength = text(value.get("abv"))
    cells += [
        _cell("Style", text(value.get("style"))),
        _cell("Alcohol", f"{strength} %" if strength else ""),
        _cell("Likes", str(listing.likes.get(row.docid, 0))),
    ]
    return tags.tr(cells)


def _cell(head: str, content: Any) -> Tag:
    # Small screens have no place for the heads of columns; the style sheet shows this instead.
    return tags.td(content, **{"data-head": head})


def _all_link(kind: Kind) -> Tag:
    """Return the way back from what a search found."""
    link = tags.a(f"All {kind.plural}", href=address(kind), class_="button")
    return tags.nav(link, **{"aria-label": "Pages"})


def _pager(path: str, following: Position | None, first: bool) -> Any:
    links = []
    if not first:
        links.append(tags.a("First page", href=path, class_="button"))
    if following is not None:
        query = urlencode({"from": following.name, "key": following.key}, errors="replace")
        links.append(tags.a("Next page", href=f"{path}?{query}", rel="next", class_="button"))
    return tags.nav([[link, " "] for link in links], **{"aria-label": "Pages"}) if links else ""


def _summary(form: Form) -> Tag:
    return tags.div(
        tags.h2("There is a problem"),
        tags.ul(
            tags.li(tags.a(form.errors[one.name], href=f"#f-{one.name}"))
            for one in form.kind.fields
            if one.name in form.errors
        ),
        role="alert",
        class_="problem",
        tabindex="-1",
        autofocus="autofocus",
    )


def _field(one: Field, form: Form, choices: Sequence[tuple[str, str]]) -> Tag:
    name = f"f-{one.name}"
    typed = text(form.texts[one.name])
    error = form.errors.get(one.name)
    notes = []
    if one.hint:
        notes.append(tags.p(one.hint, id=f"{name}-hint", class_="hint"))
    if error:
        notes.append(tags.p(tags.strong("Error: "), error, id=f"{name}-error", class_="error"))
    attributes: dict[str, Any] = {"id": name, "name": one.name, **one.limits}
    if notes:
        attributes["aria-describedby"] = " ".join(str(note.attributes["id"]) for note in notes)
    if error:
        attributes["aria-invalid"] = "true"
    if one.required:
        attributes["required"] = "required"
    if one.control == "textarea":
        control = tags.textarea(typed, rows="4", **attributes)
    elif one.control == "brewery":
        control = tags.select(_options(typed, choices), **attributes)
    else:
        control = tags.input(type=one.control, value=typed, **attributes)
    label = tags.label(one.label, "" if one.required else tags.span(" (optional)", class_="hint"), for_=name)
    return tags.div(label, *notes, control, class_="field wrong" if error else "field")


def _options(chosen: str, choices: Sequence[tuple[str, str]]) -> list[Tag]:
    options = [tags.option("Choose one", value="")]
    if chosen and chosen not in (key for key, _ in choices):
        choices = [(chosen, chosen), *choices]
    for key, name in choices:
        selected = {"selected": "selected"} if key == chosen else {}
        options.append(tags.option(text(name), value=key, **selected))
    return options
