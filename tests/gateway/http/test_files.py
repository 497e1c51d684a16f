"""Files of a folder."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

from klein import Klein
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from gateway.http.application import Application
from gateway.http.factory import ChannelFactory
from gateway.http.files import StaticFiles
from gateway.http.request import Request
from gateway.http.routing import endpoint, mount
from tests.gateway.support import Reply, Transport, raw_request, read_reply

STYLE = b"body { color: black; }\n" * 100


class Server:
    """Serves files."""

    def __init__(self, files: StaticFiles) -> None:
        self._files = files

    @endpoint("file", "GET", "/<version>/<name>")
    def file(self, request: Request) -> Any:
        """Return one."""
        return self._files.response(request, request.parameters["name"], request.parameters["version"])


class FileTests(SynchronousTestCase):
    """A folder with files of several kinds, and with others around it."""

    def setUp(self) -> None:
        above = Path(self.mktemp())
        self.folder = above / "static"
        (self.folder / "below").mkdir(parents=True)
        (above / "secret.txt").write_bytes(b"secret")
        (self.folder / "below" / "deep.txt").write_bytes(b"deep")
        (self.folder / "style.css").write_bytes(STYLE)
        (self.folder / "code.mjs").write_bytes(b"export {};")
        (self.folder / ".hidden.txt").write_bytes(b"hidden")
        (self.folder / "code.py").write_bytes(b"pass")
        self.files = StaticFiles(self.folder, [(b"X-Own", b"1")])
        self.serve(self.files)

    def serve(self, files: StaticFiles) -> None:
        """Serve these."""
        application = Application(Klein(), Clock())
        mount(application.app, Server(files), application.run_under_klein)
        application.routes_are_complete()
        self.factory = ChannelFactory(application, Clock())

    def ask(self, path: str, **headers: str) -> Reply:
        """Send a GET."""
        transport = Transport()
        channel: Any = self.factory.buildProtocol(None)
        channel.makeConnection(transport)
        transport.protocol = channel
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        channel.dataReceived(raw_request("GET", path, headers=named))
        return read_reply(transport.value())[0]

    def test_a_file(self) -> None:
        """It has its type, a validator, and the headers of all."""
        reply = self.ask(f"/{self.files.version}/style.css")
        self.assertEqual((reply.status, reply.body), (200, STYLE))
        self.assertEqual(reply.header("Content-Type"), "text/css; charset=utf-8")
        self.assertEqual(reply.header("X-Own"), "1")
        self.assertIn("immutable", reply.header("Cache-Control") or "")
        tag = reply.header("ETag") or ""
        self.assertEqual(self.ask("/x/style.css", If_None_Match=tag).status, 304)
        self.assertEqual(self.ask("/x/style.css", If_None_Match='"other"').status, 200)

    def test_another_version(self) -> None:
        """The address of an older or a newer version has the current file, and caches ask again."""
        reply = self.ask("/0123456789ab/code.mjs")
        self.assertEqual((reply.status, reply.body), (200, b"export {};"))
        self.assertEqual(reply.header("Cache-Control"), "no-cache")

    def test_version(self) -> None:
        """It changes with the content of a file, and with its name; a file that is not served does not
        matter."""
        before = self.files.version
        (self.folder / "code.py").write_bytes(b"other")
        self.assertEqual(StaticFiles(self.folder).version, before)
        (self.folder / "code.mjs").write_bytes(b"export { };")
        changed = StaticFiles(self.folder).version
        (self.folder / "code.mjs").rename(self.folder / "other.mjs")
        self.assertEqual(len({before, changed, StaticFiles(self.folder).version}), 3)

    def test_compressed(self) -> None:
        """With gzip for clients that take it, under another tag."""
        reply = self.ask("/x/style.css", Accept_Encoding="br, gzip")
        self.assertEqual(gzip.decompress(reply.body), STYLE)
        self.assertEqual(reply.header("Content-Encoding"), "gzip")
        self.assertEqual(reply.header("Vary"), "Accept-Encoding")
        self.assertNotEqual(reply.header("ETag"), self.ask("/x/style.css").header("ETag"))
        self.assertIsNone(self.ask("/x/style.css", Accept_Encoding="gzip;q=0").header("Content-Encoding"))

    def test_nothing_else(self) -> None:
        """Names that lead elsewhere, hidden files, files of unknown types and folders are 404."""
        self.assertEqual(self.files.names(), ["code.mjs", "style.css"])
        for name in (
            *("..%2Fsecret.txt", "%2e%2e%2fsecret.txt", "..%5csecret.txt", "below%2Fdeep.txt", "below"),
            *("deep.txt", ".hidden.txt", "code.py", "style.css%00", "style.css%20", "STYLE.CSS", "%ff"),
            *(str(self.folder / "style.css").replace("/", "%2F"), "style.css%3Fx", "."),
        ):
            reply = self.ask(f"/{self.files.version}/{name}")
            self.assertIn(reply.status, (400, 404), name)
            self.assertNotIn(b"secret", reply.body)
