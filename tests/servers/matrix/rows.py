"""Rows of a catalogue: their form, their execution by each driver, and their judgement."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from twisted.internet.defer import inlineCallbacks

from couchbase import exceptions
from couchbase.exceptions import CouchbaseError, NotSupportedError

_NOT_PLAIN = re.compile(r"[^A-Za-z0-9_]+")

Steps = Generator[Any, Any, "str | None"]
"""Yields what operations return; their results are sent to it, their errors thrown into it. It returns the
missing part (the operation succeeded otherwise) or ``None``. A wrong result is an AssertionError."""


class Outcome(Enum):
    """The outcome of a row on a server, as the tables print it."""

    WORKS = "yes"
    PARTLY = "partly"
    """It succeeded, except for the part that the row's steps returned."""
    REFUSED = "refused"
    """NotSupportedError or its status, and nothing was sent."""
    LACKS = "no"
    """The server does not support it; or it was refused, and what was sent is unknown."""


@dataclass(frozen=True)
class Row:
    """One operation or resource, perhaps with an option.

    :param name: of the method, or the method and path.
    :param option: one of its arguments, members or headers.
    :param faces: where there is such an operation.
    :param keeps_expiry: it is to leave the document's expiry as it was; steps that cannot see it say so.
    """

    name: str
    option: str
    steps: Callable[[Any, str], Steps]
    faces: frozenset[str] = frozenset()
    keeps_expiry: bool = False

    def __str__(self) -> str:
        return f"{self.name} {self.option}".strip()

    def key(self, face: str) -> str:
        """Return a key that no other row uses."""
        return f"{face}-{_NOT_PLAIN.sub('-', str(self))}"


@dataclass(frozen=True)
class Found:
    """The outcome of a row."""

    outcome: Outcome
    reason: str = ""
    """The missing part, or the error's name."""

    def __str__(self) -> str:
        return f"{self.outcome.value} {self.reason}".strip()


WORKS = Found(Outcome.WORKS)


class Problem(Exception):
    """An answer of the gateway that is no success.

    :param code: the error's code in the answer.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status, self.code = status, code


class Watch:
    """Detects whether anything reached the nodes since the last mark; for servers of other projects this is
    unknown.

    :param nodes: those that count received requests.
    """

    def __init__(self, nodes: Iterable[Any] = ()) -> None:
        self._nodes = list(nodes)
        self._seen = 0

    def _count(self) -> int:
        return sum(len(node.seen) for node in self._nodes)

    def mark(self) -> None:
        """Begin to look."""
        self._seen = self._count()

    def expires(self, key: str) -> bool:
        """Return whether a node of ours has a document with an expiry by this key."""
        documents = [node.documents.get(key.encode()) for node in self._nodes]
        return any(document is not None and document.expiry for document in documents)

    @property
    def is_quiet(self) -> bool:
        """Return whether nothing was sent since; false if this is unknown."""
        return bool(self._nodes) and self._count() == self._seen


def judge(error: Exception, watch: Watch) -> Found:
    """Return what an error means; one that is neither the SDK's nor the gateway's is raised."""
    if isinstance(error, Problem):
        refused, reason = error.code == "NotSupported", error.code
    elif isinstance(error, CouchbaseError):
        refused = isinstance(error, NotSupportedError) and error.status is None and not error.ambiguous
        # A class is made for each result code; its base has the name that programs know.
        reason = next(kind.__name__ for kind in type(error).__mro__ if hasattr(exceptions, kind.__name__))
    else:
        raise error
    if refused and watch.is_quiet:
        # The message must say which server would do.
        return Found(Outcome.REFUSED, reason if "Couchbase Server" in str(error) else "without a reason")
    return Found(Outcome.LACKS, reason)


def ended(row: Row, face: str, watch: Watch, missing: str | None) -> Found:
    """Return the outcome of a row whose steps completed."""
    if missing and row.keeps_expiry and watch.expires(row.key(face)):
        missing = None
    return Found(Outcome.PARTLY, missing) if missing else WORKS


def run_blocking(row: Row, face: str, connection: Any, watch: Watch) -> Found:
    """Run a row whose operations block."""
    steps, result = row.steps(connection, row.key(face)), None
    try:
        while True:
            watch.mark()
            result = steps.send(result)
    except StopIteration as end:
        return ended(row, face, watch, end.value)
    except (CouchbaseError, Problem) as error:
        return judge(error, watch)


@inlineCallbacks
def run_deferred(row: Row, face: str, connection: Any, watch: Watch) -> Any:
    """Run a row whose operations return Deferreds."""
    steps = row.steps(connection, row.key(face))
    resume: Any = steps.send
    result: Any = None
    try:
        while True:
            watch.mark()
            step = resume(result)
            try:
                result, resume = (yield step), steps.send
            except Exception as error:  # noqa: BLE001  # the row's steps have to say
                result, resume = error, steps.throw
    except StopIteration as end:
        return ended(row, face, watch, end.value)
    except (CouchbaseError, Problem) as error:
        return judge(error, watch)
