"""The application: addresses, their handlers, and messages about failures."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from klein import Klein
from twisted.internet.defer import CancelledError
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request
from twisted.web.template import flattenString
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from couchbase.exceptions import CouchbaseError, HTTPError, TimeoutError, ViewEngineError
from couchbase.protocol.constants import LOCKED_CAS
from examples.beer import pages
from examples.beer.guard import Forged, Guard
from examples.beer.kinds import (
    BEER,
    BREWERY,
    KINDS,
    UNSHOWABLE,
    Kind,
    blank_form,
    differences,
    form_of,
    read_form,
)
from examples.beer.pages import Page, address, problem_page, redirect
from examples.beer.store import (
    LONGEST_SEARCH,
    Busy,
    Conflict,
    HasBeers,
    Missing,
    NoSuchBrewery,
    Position,
    Store,
    Taken,
    search_key,
)

STATIC = Path(__file__).with_name("static")
_STATIC_TYPES = {
    "app.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "style.css": "text/css; charset=utf-8",
}
_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}

_log = Logger()

Handler = TypeVar("Handler", bound=Callable[..., Awaitable[Page]])


class Damaged(Exception):
    """A request that no page of this application makes; the text says what is wrong with it."""


def route(app: Klein, path: str, *methods: str) -> Callable[[Handler], Handler]:
    """Have a method that returns a :class:`Page` answer requests.

    Forms are checked before it is called, and every exception becomes a page.
    """

    def decorate(method: Handler) -> Handler:
        @app.route(path, methods=list(methods))
        @wraps(method)
        async def answer(self: BeerApp, request: Request, **parts: str) -> bytes:
            try:
                if request.method == b"POST":
                    self.guard.check(request, arguments(request).get("token", ""))
                page = await method(self, request, **parts)
            except CancelledError:
                raise  # the browser is gone
            except Exception as error:  # noqa: BLE001  # people get a page, whatever it is
                page = page_of(error, Failure())
            return await self.write(request, page)

        return method

    return decorate


def arguments(request: Request) -> dict[str, str]:
    """Return what the query or the form of a request says, the last value of each name.

    :raises Damaged: it is not UTF-8.
    """
    try:
        return {name.decode(): values[-1].decode() for name, values in (request.args or {}).items()}
    except UnicodeDecodeError as error:
        raise Damaged("What was sent is not UTF-8.") from error


def version_of(given: Mapping[str, str]) -> int:
    """Return the CAS of the document that a form was made from.

    :raises Damaged: there is none.
    """
    text = given.get("cas", "")
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and 0 < int(text) < LOCKED_CAS):
        raise Damaged("The form does not say which version of the document it was made from.")
    return int(text)


def start_of(given: Mapping[str, str]) -> Position | None:
    """Return where a page of a list begins, ``None`` at the beginning."""
    return Position(given["from"], given["key"]) if "from" in given and "key" in given else None


def page_of(error: Exception, failure: Failure) -> Page:
    """Return the page for an error, and log what the operator needs to know."""
    if isinstance(error, Missing):
        return problem_page(
            404, "There is no such page", "Nothing is at this address: it was deleted, or never existed.",
            "Check the address, or look for it in the lists.",
        )  # fmt: skip
    if isinstance(error, Busy):
        return problem_page(
            409, "Somebody is just deleting this", "So it can be neither changed nor deleted right now.",
            "Go back and try again in a few seconds.",
        )  # fmt: skip
    if isinstance(error, Forged):
        return problem_page(
            403, "The form cannot be accepted",
            f"This application did not make it for this browser, or has been started again since ({error}).",
            "Go back, reload the page, and send it again. Cookies must be allowed for this site.",
        )  # fmt: skip
    if isinstance(error, Damaged):
        return problem_page(
            400, "This request cannot be understood", str(error), "Start again from one of the lists."
        )
    if isinstance(error, (HTTPError, ViewEngineError)):
        _log.error("the view engine refused: {error}", error=error)
        return problem_page(
            503, "The lists are not available", "The view engine of the database refused to answer.",
            "Try again in a moment. If that does not help, start this application again: it creates its "
            "views again.",
            headers={"Retry-After": "5"},
        )  # fmt: skip
    passing = isinstance(error, CouchbaseError) and (error.is_network or error.is_transient)
    if passing or isinstance(error, (TimeoutError, DeferredTimeout)):
        _log.error("the database does not answer: {error}", error=error)
        return problem_page(
            503, "The database does not answer",
            "What you did may not have been stored.",
            "Wait a moment, look whether it was, and try again. Whoever runs this application finds the "
            "reason in its log.",
            headers={"Retry-After": "5"},
        )  # fmt: skip
    _log.failure("a page could not be made", failure=failure)
    return problem_page(
        500, "Something went wrong here", "This is a mistake in the application, not yours. It was logged.",
        "Go back, and try something else.",
    )  # fmt: skip


class BeerApp:
    """Beers and breweries as pages.

    :param guard: checks forms.
    """

    app = Klein()

    def __init__(self, store: Store, guard: Guard | None = None) -> None:
        self.store = store
        self.guard = guard or Guard()
        self._static = {name: (STATIC / name).read_bytes() for name in _STATIC_TYPES}
        self._version = sha256(b"".join(self._static.values())).hexdigest()[:12]

    async def write(self, request: Request, page: Page) -> bytes:
        """Set status and headers of a page, and return its body."""
        request.setResponseCode(page.status)
        for name, value in {**_HEADERS, **page.headers}.items():
            request.setHeader(name, value)
        if page.location:
            request.setHeader("Location", page.location)
            return b""
        done = (request.args or {}).get(b"done", [b""])[-1].decode("ascii", "replace")
        body: bytes = await flattenString(None, pages.layout(page, self._version, done))
        return b"<!DOCTYPE html>\n" + body

    # ---- reading ---------------------------------------------------------------------------------

    @route(app, "/", "GET")
    async def home(self, request: Request) -> Page:
        """Go to the beers."""
        return redirect(address(BEER))

    @route(app, "/<any(beer, brewery):kind>", "GET")
    async def overview(self, request: Request, kind: str) -> Page:
        """Show a page of the list, or search."""
        given = arguments(request)
        wanted = " ".join(UNSHOWABLE.sub(" ", given.get("q", "")).split())[:LONGEST_SEARCH]
        if search_key(wanted):
            listing = await self.store.search(KINDS[kind], wanted)
            return pages.list_page(KINDS[kind], listing, search=wanted)
        start = start_of(given)
        listing = await self.store.page(KINDS[kind], start)
        return pages.list_page(KINDS[kind], listing, first=start is None)

    @route(app, "/<any(beer, brewery):kind>/<segment>", "GET")
    async def show(self, request: Request, kind: str, segment: str) -> Page:
        """Show one document."""
        key = pages.key_of(segment)
        document = await self.store.read(KINDS[kind], key)
        token = self.guard.token(request)
        if kind == "beer":
            likes = (await self.store.likes_of([key]))[key]
            brewery = await self.store.brewery_name(document.value.get("brewery_id"))
            return pages.show_page(document, BEER, token, likes=likes, brewery=brewery)
        start = start_of(arguments(request))
        beers, total = await self.store.beers_of(key, start)
        return pages.show_page(document, BREWERY, token, beers=beers, total=total, first=start is None)

    # ---- writing ---------------------------------------------------------------------------------

    @route(app, "/new/<any(beer, brewery):kind>", "GET")
    async def new(self, request: Request, kind: str) -> Page:
        """Show an empty form."""
        given = arguments(request)
        form = blank_form(KINDS[kind], **({"brewery_id": given["brewery"]} if "brewery" in given else {}))
        return await self._form(request, form)

    @route(app, "/new/<any(beer, brewery):kind>", "POST")
    async def create(self, request: Request, kind: str) -> Page:
        """Store a new document."""
        form = read_form(KINDS[kind], arguments(request))
        if not form.errors:
            try:
                return redirect(address(form.kind, await self.store.create(form)), "created")
            except Taken as taken:
                form.errors["name"] = f"There is a {kind} of this name already; choose another name."
                return await self._form(request, form, status=409, before=_see(form.kind, taken.key))
            except NoSuchBrewery as refused:
                form.errors["brewery_id"] = str(refused)
        return await self._form(request, form, status=422)

    @route(app, "/<any(beer, brewery):kind>/<segment>/edit", "GET")
    async def edit(self, request: Request, kind: str, segment: str) -> Page:
        """Show the form that edits a document."""
        document = await self.store.read(KINDS[kind], pages.key_of(segment))
        if document.cas == LOCKED_CAS:
            raise Busy(document.key)
        form = form_of(KINDS[kind], document.value)
        return await self._form(request, form, key=document.key, cas=document.cas)

    @route(app, "/<any(beer, brewery):kind>/<segment>/edit", "POST")
    async def save(self, request: Request, kind: str, segment: str) -> Page:
        """Store the changes of the form, unless another user has changed the document since."""
        key, given = pages.key_of(segment), arguments(request)
        form, cas = read_form(KINDS[kind], given), version_of(given)
        if not form.errors:
            try:
                changed = await self.store.save(key, cas, form)
                return redirect(address(form.kind, key), "saved" if changed else "same")
            except Conflict as conflict:
                return await self._conflict(request, form, conflict)
            except Missing:
                return await self._gone(request, form)
            except NoSuchBrewery as refused:
                form.errors["brewery_id"] = str(refused)
        return await self._form(request, form, key=key, cas=cas, status=422)

    @route(app, "/<any(beer, brewery):kind>/<segment>/delete", "GET")
    async def ask(self, request: Request, kind: str, segment: str) -> Page:
        """Ask whether to delete a document."""
        document = await self.store.read(KINDS[kind], pages.key_of(segment))
        if document.cas == LOCKED_CAS:
            raise Busy(document.key)
        return pages.delete_page(KINDS[kind], document, self.guard.token(request))

    @route(app, "/<any(beer, brewery):kind>/<segment>/delete", "POST")
    async def delete(self, request: Request, kind: str, segment: str) -> Page:
        """Delete a document, if it is still the version that was shown."""
        key, cas = pages.key_of(segment), version_of(arguments(request))
        try:
            if kind == "beer":
                await self.store.remove_beer(key, cas)
            else:
                await self.store.remove_brewery(key, cas)
        except Conflict as conflict:
            token = self.guard.token(request)
            return pages.delete_page(KINDS[kind], conflict.stored, token, changed=True)
        except HasBeers as refused:
            document = await self.store.read(BREWERY, key)
            return pages.has_beers_page(document, refused.beers, refused.total)
        return redirect(address(KINDS[kind]), "deleted")

    @route(app, "/beer/<segment>/like", "POST")
    async def like(self, request: Request, segment: str) -> Page:
        """Count a like."""
        key = pages.key_of(segment)
        await self.store.like(key)
        return redirect(address(BEER, key), "liked")

    # ---- parts of these --------------------------------------------------------------------------

    async def _form(self, request: Request, form: Any, **options: Any) -> Page:
        choices = await self.store.choices() if form.kind is BEER else []
        chosen = form.texts.get("brewery_id", "")
        if chosen and chosen not in dict(choices):
            choices.insert(0, (chosen, await self.store.brewery_name(chosen) or chosen))
        return pages.form_page(form, self.guard.token(request), choices, **options)

    async def _conflict(self, request: Request, form: Any, conflict: Conflict) -> Page:
        stored = conflict.stored
        choices = await self.store.choices() if form.kind is BEER else []
        names = dict(choices)
        for key in (form.values.get("brewery_id"), stored.value.get("brewery_id")):
            if isinstance(key, str) and key not in names:
                names[key] = await self.store.brewery_name(key) or key
        changed = differences(form.kind, stored.value, form)
        return pages.conflict_page(
            form, stored, changed, names, self.guard.token(request), list(names.items())
        )

    async def _gone(self, request: Request, form: Any) -> Page:
        note = pages.problem(
            f"While you were editing, somebody deleted this {form.kind.name}. What you typed is below: "
            "create it again with that, or cancel."
        )
        return await self._form(
            request,
            form,
            status=409,
            before=[note],
            title="Somebody else deleted it",
            submit="Create it again",
        )

    # ---- everything else -------------------------------------------------------------------------

    @app.route("/static/<name>", methods=["GET"])
    def static(self, request: Request, name: str) -> Any:
        """Serve the style sheet, the script and the icon."""
        if name not in self._static:
            return self.write(request, page_of(Missing(name), Failure(Missing(name))))
        request.setHeader("Content-Type", _STATIC_TYPES[name])
        request.setHeader("Cache-Control", "public, max-age=31536000, immutable")
        request.setHeader("X-Content-Type-Options", "nosniff")
        return self._static[name]

    @app.handle_errors(HTTPException)
    def no_route(self, request: Any, failure: Failure) -> Any:
        """Say that nothing is at an address."""
        error = failure.value
        if isinstance(error, MethodNotAllowed):
            allowed = ", ".join(sorted(error.valid_methods or ()))
            page = problem_page(
                405, "That cannot be done here", f"This address takes {allowed} only.",
                "Start again from one of the lists.", headers={"Allow": allowed},
            )  # fmt: skip
            return self.write(request, page)
        return self.write(request, page_of(Missing(), failure))


def _see(kind: Kind, key: str) -> list[Any]:
    return [pages.see_also(f"See the {kind.name} of this name", address(kind, key))]
