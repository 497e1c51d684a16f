"""Options, their sources, and what is refused at start."""

from __future__ import annotations

import builtins
import os
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import given
from hypothesis.strategies import lists, sampled_from
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import Clock
from twisted.python.filepath import FilePath
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from couchbase.protocol.version import VERSION
from gateway.commandline import Options
from gateway.endpoints import is_local, listen_address
from gateway.options import SETTINGS
from gateway.service import make_node, with_account
from gateway.settings import Settings, resolve

PARTS = ["0", "8080", "port=1", "backlog=2", "127.0.0.1", "0.0.0.0", "\\:\\:1"]
PARTS += [
    f"interface={address}" for address in ("", "127.0.0.1", "0.0.0.0", "\\:\\:", "\\:\\:1", "localhost")
]


class ResolveTests(SynchronousTestCase):
    """Command line over environment over file over default."""

    def file(self, content: str, name: str = "c.toml") -> str:
        path = FilePath(self.mktemp())
        path.makedirs()
        path.child(name).setContent(content.encode())
        return path.child(name).path  # type: ignore[no-any-return]

    def resolve(self, arguments: list[str], environment: dict[str, str] | None = None) -> Settings:
        options = Options()
        with mock.patch.dict(os.environ, environment or {}, clear=True):
            os.environ.setdefault("HOME", os.getcwd())
            options.parseOptions(arguments)
        assert options.settings is not None
        return options.settings

    def refuses(self, words: str, arguments: list[str], environment: dict[str, str] | None = None) -> None:
        with self.assertRaises(UsageError) as caught:
            self.resolve(arguments, environment)
        self.assertIn(words, str(caught.exception))

    def test_defaults(self) -> None:
        """Without options: loopback, an embedded node with its data in the user's folder, anyone may call."""
        settings = self.resolve([])
        self.assertEqual(settings.listen, ["tcp:8080:interface=127.0.0.1"])
        self.assertEqual((settings.auth, settings.cluster, settings.bucket), ("none", None, "default"))
        self.assertTrue((settings.data or "").endswith("couchgateway"))
        self.assertEqual(settings.limits.max_body, 20 * 2**20)

    def test_precedence(self) -> None:
        """Each option separately."""
        path = self.file('bucket = "file"\ntimeout = 9\nmax_body = "1K"\naccess-log = true\n')
        environment = {
            "COUCHGATEWAY_CONFIG": path,
            "COUCHGATEWAY_BUCKET": "environment",
            "COUCHGATEWAY_TIMEOUT": "8",
        }
        settings = self.resolve(["--bucket", "line", "--ephemeral"], environment)
        self.assertEqual((settings.bucket, settings.timeout, settings.limits.max_body), ("line", 8.0, 1024))
        self.assertTrue(settings.access_log)
        self.assertIsNone(settings.data)

    def test_lists(self) -> None:
        """A repeatable option is replaced as a whole, never mixed."""
        path = self.file('listen = ["tcp:1:interface=127.0.0.1", "tcp:2:interface=127.0.0.1"]')
        self.assertEqual(len(self.resolve(["--config", path]).listen), 2)
        environment = {"COUCHGATEWAY_LISTEN": "tcp:3:interface=localhost unix:/run/s"}
        self.assertEqual(self.resolve(["--config", path], environment).listen[1], "unix:/run/s")
        given = ["--listen", "tcp:4:interface=127.0.0.1", "--listen", "tcp6:5:interface=\\:\\:1"]
        self.assertEqual(len(self.resolve(given, environment).listen), 2)

    def test_wrong_values_name_their_source(self) -> None:
        """The option, the variable, or the line of the file, and what it takes."""
        path = self.file("timeout = -1")
        unknown = self.file("tiemout = 1")
        broken = self.file("timeout")
        for words, arguments, environment in (
            ("--timeout: 'x' is not a number of seconds", ["--timeout", "x"], {}),
            ("--max-body: '20X'", ["--max-body", "20X"], {}),
            ("--max-clients: '0'", ["--max-clients", "0"], {}),
            ("--nodes: '17' is not a whole number from 1 to 16", ["--nodes", "17"], {}),
            ("--listen: 'nonsense'", ["--listen", "nonsense"], {}),
            ("--cluster: 'host'", ["--cluster", "host"], {}),
            ("--bucket: 'a b'", ["--bucket", "a b"], {}),
            ("--auth: 'maybe'", ["--auth", "maybe"], {}),
            ("--config: there is no file", ["--config", "/nonexistent"], {}),
            ("COUCHGATEWAY_TIMEOUT: '0'", [], {"COUCHGATEWAY_TIMEOUT": "0"}),
            ("COUCHGATEWAY_NONSENSE", [], {"COUCHGATEWAY_NONSENSE": "1"}),
            ("COUCHGATEWAY_EPHEMERAL: 'maybe'", [], {"COUCHGATEWAY_EPHEMERAL": "maybe"}),
            ("c.toml: timeout: '-1'", ["--config", path], {}),
            ("c.toml: tiemout: there is no such setting", ["--config", unknown], {}),
            ("--config: ", ["--config", broken], {}),
            ("--config: ", ["--config", self.file("x = " + "[" * 5000)], {}),
            (f"--access: there is no file '{'x' * 300}", ["--access", "x" * 300], {}),
            (": File name too long", ["--log-file", "x" * 300], {}),
        ):
            self.refuses(words, arguments, environment)

    def test_kinds_of_values(self) -> None:
        """A file that gives a setting a value of another kind is refused with words, whatever the setting."""
        for setting in SETTINGS:
            if setting.name == "config":
                continue
            for value in ("true", "1979-05-27", "[[]]", "{}", '"\\u0000"', "nan"):
                path = self.file(f"{setting.attribute} = {value}")
                try:
                    self.resolve(["--config", path])
                except UsageError as error:
                    self.assertIn("c.toml: ", str(error))
                    continue
                # A switch takes true, and some texts may be this word.
                self.assertEqual(value, "true" if setting.parse is None else "nan", setting.name)

    def test_what_does_not_go_together(self) -> None:
        """Each invalid combination is reported for the option at fault."""
        password = self.file("secret\n", "password")
        account = ["--user", "u", "--password-file", password]
        cluster = ["--cluster", "couchbase://h"]
        for words, arguments in (
            ("--ephemeral: it cannot be combined with --data", ["--ephemeral", "--data", "d"]),
            ("--data: it is an option of the embedded node", [*cluster, "--data", "d"]),
            ("--nodes: it is an option of the embedded node", [*cluster, "--nodes", "2"]),
            ("--user: it needs --password-file", ["--user", "u"]),
            ("--password-file: it needs --user", ["--password-file", password]),
            ("--auth: none admits anyone", ["--listen", "tcp:1", "--auth", "none"]),
            ("--auth: none needs a service account", [*cluster, "--auth", "none"]),
            ("--auth: passthrough with the embedded node", ["--auth", "passthrough"]),
            ("--listen: 'tcp:1' can be reached from other machines", ["--listen", "tcp:1"]),
            ("so restrict callers", ["--listen", "tcp:8080:interface=0.0.0.0"]),
            ("--listen: 'tcp:99999': there is no port 99999", ["--listen", "tcp:99999"]),
            ("there is no port -1", ["--listen", "tcp:-1:interface=127.0.0.1"]),
            ("--replicas: 1 replicas need at least 2 nodes", ["--replicas", "1", "--nodes", "1"]),
            ("--bucket-password-file: it is an option of", [*cluster, "--bucket-password-file", password]),
            ("--bucket-password-file: there is no file", ["--bucket-password-file", "/nonexistent"]),
            (
                "--user: 'default' is the name of the bucket",
                ["--user", "default", "--password-file", password],
            ),
            ("control character", ["--user", "u", "--password-file", self.file("a\0\n", "nul")]),
            ("--user: 'a\\tb' is not a user name", ["--user", "a\tb", "--password-file", password]),
            ("--cors-origin: none excludes", ["--cors-origin", "none", "--cors-origin", "http://a"]),
            ("--cors-origin: * with --auth none", ["--cors-origin", "*"]),
            ("--cors-origin: 'https://a/' is not an origin", ["--cors-origin", "https://a/"]),
            ("--cors-origin: 'null' is not an origin", ["--cors-origin", "null"]),
            ("--allow-host: 'http://a' is not a host name", ["--allow-host", "http://a"]),
            ("--cors-origin: none excludes", ["--cors-origin", "http://a", "--cors-origin", "none"]),
            ("ports are 1 to 65535", ["--cors-origin", "http://a:65536"]),
            ("ports are 1 to 65535", ["--cors-origin", "http://a:0"]),
            ("'http://[::::]' is not an origin", ["--cors-origin", "http://[::::]"]),
            ("--allow-host: '[::::]' is not a host name", ["--allow-host", "[::::]"]),
            ("--allow-host: 'a:65536' is not a host name", ["--allow-host", "a:65536"]),
            ("--allow-host: 'a:80' is not a host name", ["--allow-host", "a:80"]),
            ("first line", ["--user", "u", "--password-file", self.file("\nx", "empty")]),
        ):
            self.refuses(words, arguments)
        self.assertEqual(self.resolve([*cluster]).auth, "passthrough")
        self.assertEqual(self.resolve(["--cors-origin", "*", "--insecure"]).cors_origin, ["*"])
        named = self.resolve(["--allow-host", "a.example", "--allow-host", "b"])
        self.assertEqual((named.allow_host, named.cors_origin), (["a.example", "b"], []))
        self.assertEqual(self.resolve([*cluster, *account, "--auth", "none"]).password, "secret")
        self.assertEqual(self.resolve(["--listen", "tcp:1", "--auth", "none", "--insecure"]).auth, "none")
        self.assertEqual(self.resolve(["--listen", "tcp:1", *account]).auth, "passthrough")

    def test_no_home(self) -> None:
        """A user without a home directory, as in many containers, has to choose a folder, or none."""

        def nobody() -> Path:
            raise RuntimeError("Could not determine home directory.")

        self.patch(Path, "home", nobody)
        self.refuses("--data: this user has no home directory", [])
        for arguments in (["--ephemeral"], ["--data", "d"]):
            settings = with_account(self.resolve(arguments))
            self.assertFalse(make_node(settings).running)

    def test_local_endpoints(self) -> None:
        """Loopback and Unix sockets, and no other endpoints."""
        for endpoint, local in (
            ("tcp:8080:interface=127.0.0.1", True),
            ("tcp:8080:interface=localhost", True),
            ("tcp6:8080:interface=\\:\\:1", True),
            ("ssl:8443:interface=127.0.0.1:privateKey=k", True),
            ("unix:/run/s", True),
            ("tcp:8080", False),
            ("tcp:8080:interface=0.0.0.0", False),
            ("tcp:8080:interface=192.168.0.1", False),
            ("systemd:domain=INET:index=0", False),
            # Twisted takes the last of two, and arguments by their place as well as by their name.
            ("tcp:0:interface=127.0.0.1:interface=0.0.0.0", False),
            ("tcp:0:interface=0.0.0.0:interface=127.0.0.1", True),
            ("tcp:interface=127.0.0.1:port=0", True),
            ("tcp:port=0:interface=127.0.0.1:interface=", False),
            ("tcp:0:127.0.0.1", True),
            ("tcp:0:0.0.0.0:50", False),
            ("tcp:0:\\interface=127.0.0.1", True),
            ("tcp:0:interface=LOCALHOST", True),
            ("tcp:0:interface=127.1.2.3", True),
            ("tcp:0:interface=127.0.0.1.example", False),
            ("tcp:0:interface=127.0.0.1%eth0", False),
            ("tcp6:0", False),
            ("TCP6:0:interface=\\:\\:1", True),
            ("tcp6:0:interface=\\:\\:", False),
            ("tcp6:0:50:\\:\\:1", True),
            ("tcp6:0:interface=\\:\\:ffff\\:127.0.0.1", True),
            ("tcp6:0:interface=\\:\\:ffff\\:10.0.0.1", False),
            ("ssl:8443:interface=127.0.0.1:privateKey=k:interface=0.0.0.0", False),
            ("ssl:8443:k:c:None:127.0.0.1", True),
            ("haproxy:tcp:8080:interface=127.0.0.1", True),
            ("haproxy:tcp\\:8080\\:interface=127.0.0.1", False),
            ("haproxy:tcp:8080", False),
            ("haproxy:haproxy:unix:/run/s", True),
            ("unix:/run/s:mode=660", True),
            ("fd:3", False),
            ("stdio:", False),
        ):
            self.assertEqual(is_local(endpoint), local, endpoint)

    @given(kind=sampled_from(["tcp", "tcp6"]), parts=lists(sampled_from(PARTS), max_size=4))
    def test_endpoints_are_read_as_twisted_reads_them(self, kind: str, parts: list[str]) -> None:
        """For any order, form and number of arguments, the check is about the address to which Twisted would
        bind."""
        description = ":".join([kind, *parts])
        try:
            endpoint: Any = serverFromString(Clock(), description)
        except Exception:  # noqa: BLE001  # what Twisted refuses never gets as far
            return
        address = listen_address(description)
        self.assertEqual((address.port, address.interface), (endpoint._port, endpoint._interface))

    def test_endpoints_that_twisted_refuses(self) -> None:
        """The message names what is wrong in the endpoint, not in a call of Twisted's functions."""
        for description, reason in (
            ("tcp:abc", "'abc' is not a whole number"),
            ("tcp:", "'' is not a whole number"),
            ("tcp:80:backlog=x", "'x' is not a whole number"),
            ("haproxy:tcp:x", "'x' is not a whole number"),
            ("tcp", "'port' is missing"),
            ("tcp:80:port=3", "'port' is given twice"),
            ("tcp:80:nope=1", "it has no parameter 'nope'"),
            ("foo:1", "Unknown endpoint type: 'foo'"),
        ):
            refused = self.assertRaises(UsageError, self.resolve, ["--listen", description])
            example = "tcp:8080:interface=127.0.0.1"
            words = f"--listen: {description!r} is not an endpoint such as {example}: {reason}"
            self.assertEqual(str(refused), words)

    def test_every_setting_has_a_text_and_a_field(self) -> None:
        """The table and the result agree."""
        fields: Any = set(Settings.__dataclass_fields__) | set(Settings.__annotations__)
        limits = set(resolve({}, {"HOME": "."}).limits.__dict__)
        for setting in SETTINGS:
            known = setting.attribute in fields | limits or setting.attribute in (
                "config",
                "ephemeral",
                "password_file",
                "bucket_password_file",
            )
            self.assertTrue(known and setting.text.endswith("."), setting.name)


class CommandTests(SynchronousTestCase):
    """Messages of the command line."""

    def test_version(self) -> None:
        """The gateway's own, as the package has it."""
        printed: list[str] = []
        self.patch(builtins, "print", printed.append)
        with self.assertRaises(SystemExit) as caught:
            Options().parseOptions(["--version"])
        self.assertEqual((printed, caught.exception.code), ([f"couchgateway {VERSION}"], 0))

    def test_help(self) -> None:
        """Each option with its default, if it has one."""
        text = " ".join(Options().getUsage(width=200).split())
        for words in (
            "[default: tcp:8080:interface=127.0.0.1] May be repeated.",
            "[default: 256M]",
            "[default: 16K]",
            "[default: 2.5]",
            "Print the version and exit.",
        ):
            self.assertIn(words, text)
        for setting in SETTINGS:
            self.assertIn(f"--{setting.name}", text)
            if setting.default not in (None, [], False):
                self.assertIn("efault", setting.help, setting.name)

    def test_stray_word(self) -> None:
        """It is named."""
        error = self.assertRaises(UsageError, Options().parseOptions, ["stray"])
        self.assertIn("'stray'", str(error))
