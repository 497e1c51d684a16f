"""Everything that the application asks of the bucket: documents, counters, views."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread

from couchbase.exceptions import (
    CouchbaseError,
    HTTPError,
    KeyExistsError,
    NotFoundError,
    TemporaryFailError,
    ValueFormatError,
)
from couchbase.protocol.constants import LOCKED_CAS
from couchbase.views.params import Query
from examples.beer.documents import LONGEST_KEY, read_documents
from examples.beer.kinds import BEER, BREWERY, Form, Kind, differences, merged, slug
from txcouchbase.connection import BatchedView, Connection

DESIGN = "beer_app"
DESIGN_FILE = Path(__file__).with_name("design.json")
PAGE_ROWS = 20
MOST_CHOICES = 500
MOST_NAMESAKES = 9
LONGEST_SEARCH = 60
LOAD_AT_ONCE = 500
LOCK_SECONDS = 15
# Shorter than a lock: the result of a query must still be true while the lock holds.
QUERY_SECONDS = 10
HIGHEST: dict[str, Any] = {}
"""As part of a view's key: it sorts after every null, number, string and array."""


class Missing(Exception):
    """There is no such document, or it is of another kind."""


class Conflict(Exception):
    """Another user changed the document since it was shown.

    :ivar stored: what is stored now.
    """

    def __init__(self, stored: Document) -> None:
        super().__init__(stored.key)
        self.stored = stored


class Taken(Exception):
    """There is a document of that name.

    :ivar key: its key.
    """

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


class HasBeers(Exception):
    """The brewery has beers and cannot be deleted.

    :ivar beers: rows of the first of them.
    :ivar total: how many there are.
    """

    def __init__(self, beers: list[Any], total: int) -> None:
        super().__init__(total)
        self.beers = beers
        self.total = total


class Busy(Exception):
    """Another user is deleting the document: a moment later it is gone, or unlocked."""


class NoSuchBrewery(Exception):
    """A beer cannot be this brewery's; the text says why, and what to do."""


@dataclass(frozen=True)
class Document:
    """A document as it was read."""

    key: str
    cas: int
    value: dict[str, Any]

    @property
    def name(self) -> str:
        """Its name, or its key if it has none."""
        name = self.value.get("name")
        return name if isinstance(name, str) and name else self.key


@dataclass(frozen=True)
class Position:
    """The position at which a page of a list begins."""

    name: str
    key: str


@dataclass(frozen=True)
class Listing:
    """Some rows, and what goes with them.

    :ivar rows: ViewRows whose values are what :file:`design.json` emits.
    :ivar following: where the next page begins; ``None`` on the last.
    :ivar more: whether there are rows behind these.
    :ivar breweries: names of the breweries of these beers, by key, as far as they exist.
    :ivar likes: likes of these beers, by key.
    """

    rows: list[Any]
    following: Position | None = None
    more: bool = False
    breweries: Mapping[str, str] = field(default_factory=dict)
    likes: Mapping[str, int] = field(default_factory=dict)


class Store:
    """Documents, counters and views of the application.

    Besides what methods say, each fails with what its operations fail with: a network error, HTTPError of a
    view engine that refuses, and so on.
    """

    def __init__(self, connection: Connection, reactor: Any) -> None:
        self._connection = connection
        self._reactor = reactor

    # ---- at the start ----------------------------------------------------------------------------

    async def prepare(self, seconds: float = 60) -> bool:
        """Publish the views, unless the same ones exist.

        :param seconds: how long the cluster may take to show them.
        :returns: whether something was published.
        """
        design = json.loads(DESIGN_FILE.read_text())
        try:
            found = await self._connection.design_get(DESIGN, use_devmode=False)
            if isinstance(found.value, dict) and found.value.get("views") == design["views"]:
                return False
        except HTTPError as error:
            if getattr(error.objextra, "http_status", None) != 404:
                raise
        await self._connection.design_create(DESIGN, design, use_devmode=True)
        await self._connection.design_publish(DESIGN, syncwait=seconds)
        return True

    async def load(self, path: Path) -> tuple[int, int]:
        """Add the documents of a file; existing ones are not changed.

        :returns: how many were added, and how many were there already.
        :raises LoadError: the file cannot be read to its end.
        """
        documents = read_documents(path)
        added = kept = 0
        while some := await deferToThread(lambda: dict(islice(documents, LOAD_AT_ONCE))):
            try:
                results = await self._connection.add_multi(some)
            except KeyExistsError as error:
                results = error.all_results
            there = [key for key, result in results.items() if not result.success]
            # Only the first failure is raised; it may hide one of another kind.
            for key in there:
                await self._connection.get(key, no_format=True)
            added += len(some) - len(there)
            kept += len(there)
        return added, kept

    # ---- reading ---------------------------------------------------------------------------------

    async def read(self, kind: Kind, key: str) -> Document:
        """Read one document.

        :raises Missing: there is none of this kind.
        """
        if not _is_key(key):
            raise Missing(key)
        try:
            result = await self._connection.get(key)
        except (NotFoundError, ValueFormatError) as error:
            raise Missing(key) from error
        if not isinstance(result.value, dict) or result.value.get("type") != kind.name:
            raise Missing(key)
        return Document(key, result.cas, result.value)

    async def page(self, kind: Kind, start: Position | None = None) -> Listing:
        """Return a page of all documents of a kind, by name."""
        query = Query(limit=PAGE_ROWS + 1)
        if start is not None:
            query.update(startkey=start.name, startkey_docid=start.key)
        rows = list(await self._query(kind.name, query))
        following = rows[PAGE_ROWS] if len(rows) > PAGE_ROWS else None
        position = None if following is None else Position(following.key, following.docid)
        return await self._listing(kind, rows[:PAGE_ROWS], position, following is not None)

    async def search(self, kind: Kind, text: str) -> Listing:
        """Return the first documents with a word, in their names, that begins like ``text``.

        The view has a row for each word of a name, with the name from there on as its key; so all that
        begin alike are one range of keys. They come in the order of those words, and are shown by name.
        """
        wanted = search_key(text)
        query = Query(
            mapkey_range=[[kind.name, wanted], [kind.name, wanted + Query.STRING_RANGE_END]],
            limit=3 * PAGE_ROWS + 1,  # two words of one name may both begin so
        )
        rows = list(await self._query("search", query))
        once = list({row.docid: row for row in reversed(rows)}.values())[::-1]
        more = len(once) > PAGE_ROWS or len(rows) > 3 * PAGE_ROWS
        shown = sorted(once[:PAGE_ROWS], key=lambda row: (row.value["name"].lower(), row.docid))
        return await self._listing(kind, shown, None, more)

    async def beers_of(self, key: str, start: Position | None = None) -> tuple[Listing, int]:
        """Return a page of a brewery's beers, by name, and how many it has in all."""
        total = await self._count_beers(key)
        query = Query(
            startkey=[key] if start is None else [key, start.name],
            endkey=[key, HIGHEST],
            reduce=False,
            limit=PAGE_ROWS + 1,
        )
        if start is not None:
            query.update(startkey_docid=start.key)
        rows = list(await self._query("brewery_beers", query)) if total else []
        following = rows[PAGE_ROWS] if len(rows) > PAGE_ROWS else None
        position = None if following is None else Position(following.key[1], following.docid)
        return await self._listing(BEER, rows[:PAGE_ROWS], position, following is not None), total

    async def choices(self) -> list[tuple[str, str]]:
        """Return key and name of the first breweries, by name."""
        rows = await self._query("brewery", Query(limit=MOST_CHOICES))
        return [(row.docid, row.value["name"]) for row in rows]

    async def brewery_name(self, key: Any) -> str | None:
        """Return the name of a brewery, ``None`` if there is none."""
        return (await self._brewery_names([key])).get(key) if isinstance(key, str) else None

    # ---- writing ---------------------------------------------------------------------------------

    async def create(self, form: Form) -> str:
        """Store a new document, and return its key.

        :raises Taken: there is one of that name (and brewery).
        :raises NoSuchBrewery: the beer's brewery is gone.
        """
        kind, name = form.kind, form.values["name"]
        start = slug(name)
        if kind is BEER:
            brewery = form.values["brewery_id"]
            await self._check_brewery(brewery)
            start = f"{brewery.encode()[:120].decode(errors='ignore')}-{start}"
        value = merged(kind, {}, form, _now())
        for number in range(1, MOST_NAMESAKES + 1):
            # Names that differ in nothing but punctuation would have one key.
            key = start if number == 1 else f"{start}_{number}"
            try:
                result = await self._connection.add(key, value)
            except KeyExistsError:
                other = (await self._values([key])).get(key)
                if isinstance(other, dict) and str(other.get("name")).casefold() == name.casefold():
                    break
            else:
                if kind is BEER:
                    await self._keep_or_undo(brewery, key, result.cas, None)
                return key
        raise Taken(key)

    async def save(self, key: str, cas: int, form: Form) -> bool:
        """Store what a form changes, if the document is still the version that the form was made from.

        :returns: whether there was something to store.
        :raises Conflict: it is another version now, and the form differs from that.
        :raises Missing: it is gone.
        :raises Busy: it is being deleted.
        :raises NoSuchBrewery: the beer's new brewery is gone.
        """
        kind = form.kind
        stored = await self.read(kind, key)
        changed = [one.name for one in differences(kind, stored.value, form)]
        if not changed:
            return False
        _check_version(stored, cas)
        moves = kind is BEER and "brewery_id" in changed
        if moves:
            await self._check_brewery(form.values["brewery_id"])
        value = merged(kind, stored.value, form, _now())
        try:
            result = await self._connection.replace(key, value, cas=cas)
        except KeyExistsError:
            await self._raise_conflict(kind, key)
        except NotFoundError as error:
            raise Missing(key) from error
        if moves:
            await self._keep_or_undo(form.values["brewery_id"], key, result.cas, stored.value)
        return True

    async def remove_beer(self, key: str, cas: int) -> None:
        """Delete a beer, and its likes.

        :raises Conflict: it is not the version that was shown.
        :raises Missing: it is gone.
        """
        _check_version(await self.read(BEER, key), cas)
        await self._delete(BEER, key, cas)
        await self._connection.delete(likes_key(key), quiet=True)

    async def remove_brewery(self, key: str, cas: int) -> None:
        """Delete a brewery that has no beers.

        Between looking for beers and deleting, the document is locked: a request that stores a beer checks
        its brewery afterwards, and removes the beer if the brewery is locked or gone. So no beer is left
        without its brewery, in any order of events.

        :raises HasBeers: it has beers.
        :raises Conflict: it is not the version that was shown.
        :raises Missing: it is gone.
        :raises Busy: another user is deleting it.
        """
        shown = await self.read(BREWERY, key)
        _check_version(shown, cas)
        # First without the lock, which would give the document a new version while others edit it.
        await self._check_no_beers(key)
        try:
            locked = await self._connection.lock(key, ttl=LOCK_SECONDS)
        except TemporaryFailError as error:
            raise Busy(key) from error
        except NotFoundError as error:
            raise Missing(key) from error
        try:
            if locked.value == shown.value:
                await self._check_no_beers(key)
                await self._delete(BREWERY, key, locked.cas)
                return
        except BaseException:
            await self._unlock(key, locked.cas)
            raise
        await self._unlock(key, locked.cas)
        await self._raise_conflict(BREWERY, key)

    async def like(self, key: str) -> int:
        """Count one more who likes a beer, and return how many do.

        :raises Missing: there is no such beer.
        """
        await self.read(BEER, key)
        return int((await self._connection.incr(likes_key(key), initial=1)).value)

    async def likes_of(self, keys: Iterable[str]) -> dict[str, int]:
        """Return how many like each of some beers."""
        wanted = {key: likes_key(key) for key in keys}
        values = await self._values(wanted.values())
        return {key: count if isinstance(count := values.get(one), int) else 0 for key, one in wanted.items()}

    # ---- parts of these --------------------------------------------------------------------------

    async def _query(self, view: str, query: Query) -> BatchedView:
        # stale=false: users who stored a document want to see it in the list that follows.
        query.update(stale=False)
        asked = self._connection.queryAll(DESIGN, view, query=query)
        return await asked.addTimeout(QUERY_SECONDS, self._reactor)

    async def _listing(self, kind: Kind, rows: list[Any], following: Position | None, more: bool) -> Listing:
        if kind is BREWERY or not rows:
            return Listing(rows, following, more)
        names = await self._brewery_names({row.value.get("brewery") for row in rows})
        likes = await self.likes_of(row.docid for row in rows)
        return Listing(rows, following, more, names, likes)

    async def _brewery_names(self, keys: Iterable[Any]) -> dict[str, str]:
        values = await self._values(key for key in keys if isinstance(key, str) and _is_key(key))
        return {
            key: Document(key, 0, value).name
            for key, value in values.items()
            if isinstance(value, dict) and value.get("type") == BREWERY.name
        }

    async def _values(self, keys: Iterable[str]) -> dict[str, Any]:
        """Return the values of those documents that exist and can be decoded."""
        wanted = list(keys)
        if not wanted:
            return {}
        try:
            results = await self._connection.get_multi(wanted, quiet=True)
        except ValueFormatError as error:
            results = error.all_results
        return {key: result.value for key, result in results.items() if result.success}

    async def _count_beers(self, key: str) -> int:
        query = Query(startkey=[key], endkey=[key, HIGHEST], reduce=True)
        return sum(row.value for row in await self._query("brewery_beers", query))

    async def _check_no_beers(self, key: str) -> None:
        listing, total = await self.beers_of(key)
        if total:
            raise HasBeers(listing.rows, total)

    async def _check_brewery(self, key: str) -> None:
        try:
            brewery = await self.read(BREWERY, key)
        except Missing as error:
            raise NoSuchBrewery("That brewery does not exist any more; choose another one.") from error
        if brewery.cas == LOCKED_CAS:
            raise NoSuchBrewery(
                "Somebody is just deleting that brewery. Choose another one, or try again in a moment."
            )

    async def _keep_or_undo(self, brewery: str, key: str, cas: int, before: dict[str, Any] | None) -> None:
        """Take back what was stored if its brewery went away meanwhile; see :meth:`remove_brewery`."""
        try:
            await self._check_brewery(brewery)
        except NoSuchBrewery:
            try:
                if before is None:
                    await self._connection.delete(key, cas=cas)
                else:
                    await self._connection.replace(key, before, cas=cas)
            except (KeyExistsError, NotFoundError):
                pass  # another user changed it since, so it is theirs now
            raise

    async def _delete(self, kind: Kind, key: str, cas: int) -> None:
        try:
            await self._connection.delete(key, cas=cas)
        except KeyExistsError:
            await self._raise_conflict(kind, key)
        except NotFoundError as error:
            raise Missing(key) from error

    async def _raise_conflict(self, kind: Kind, key: str) -> None:
        stored = await self.read(kind, key)
        if stored.cas == LOCKED_CAS:
            raise Busy(key)
        raise Conflict(stored)

    async def _unlock(self, key: str, cas: int) -> None:
        try:
            await self._connection.unlock(key, cas)
        except CouchbaseError:
            pass  # the lock expires


def _check_version(stored: Document, cas: int) -> None:
    if stored.cas == LOCKED_CAS:
        raise Busy(stored.key)
    if stored.cas != cas:
        raise Conflict(stored)


def _is_key(key: str) -> bool:
    try:
        return 0 < len(key.encode()) <= LONGEST_KEY
    except UnicodeEncodeError:
        return False


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


def search_key(text: str) -> str:
    """Return what is searched for: as names are in the view, without what cannot begin a word."""
    return " ".join(text.lower().split()).lstrip(" .,;:()/-")[:LONGEST_SEARCH]


def likes_key(key: str) -> str:
    """Return the key of a beer's counter."""
    counter = f"likes-{key}"
    return counter if _is_key(counter) else f"likes-{hashlib.sha256(key.encode()).hexdigest()}"
