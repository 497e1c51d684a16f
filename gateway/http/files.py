"""Static files from memory: the files of one folder and some other files, read once.

Names are looked up in a table, so no request can reach a file outside the folder.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from operator import attrgetter
from pathlib import Path

from gateway.http.prepared import Prepared
from gateway.http.refusal import no_route
from gateway.http.request import Request
from gateway.http.response import Headers, Response

__all__ = ["TYPES", "StaticFiles"]

TYPES = {
    ".css": b"text/css; charset=utf-8",
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".json": b"application/json",
    ".mjs": b"text/javascript; charset=utf-8",
    ".png": b"image/png",
    ".svg": b"image/svg+xml",
    ".txt": b"text/plain; charset=utf-8",
}
"""File name suffix -> content type; files with other suffixes are not served."""

_FOREVER = b"public, max-age=31536000, immutable"
_CHECKED = b"no-cache"


class StaticFiles:
    """The files of a folder; those of its subfolders are not served.

    :param folder: the folder, which is read now, and not again.
    :param headers: headers of every answer.
    :param also: files of other folders, served by their own names.
    :raises OSError: the folder or one of the files cannot be read.
    """

    def __init__(self, folder: Path, headers: Headers = (), also: Iterable[Path] = ()) -> None:
        self._files: dict[bytes, Prepared] = {}
        total = sha256()
        for path in sorted((*folder.iterdir(), *also), key=attrgetter("name")):
            content_type = TYPES.get(path.suffix)
            if content_type is not None and path.is_file() and not path.name.startswith("."):
                name = path.name.encode("utf-8")
                held = self._files[name] = Prepared(path.read_bytes(), content_type, headers)
                total.update(b"%b %b\n" % (name, held.tag))
        self.version = total.hexdigest()[:12]
        """The version, which changes with any of the files: it is a part of their URLs, so that caches may
        keep them."""

    def names(self) -> list[str]:
        """Return the names of the files, sorted."""
        return [name.decode("utf-8") for name in self._files]

    def text(self, name: str) -> str:
        """Return a file's text; it must be UTF-8."""
        return self._files[name.encode("utf-8")].body.decode("utf-8")

    def response(self, request: Request, name: bytes, version: bytes) -> Response:
        """Return a file.

        :param version: the version in the URL. If it is not the current one, the answer is the current file,
            and caches must not keep it without a check.
        :raises Refusal: 404, there is no such file.
        """
        held = self._files.get(name)
        if held is None:
            raise no_route(request.path)
        is_current = version == self.version.encode("ascii")
        return held.response(request, _FOREVER if is_current else _CHECKED)
