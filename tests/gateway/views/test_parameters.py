"""Parameters of a view query: each spelling, in both places, and what each refuses."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl, quote

from twisted.trial.unittest import SynchronousTestCase

from couchbase.views.params import Params
from gateway.dialect.errors import Refusal
from gateway.dialect.jsontools import loads
from gateway.http.request import Request
from gateway.views.parameters import ALIASES, MAX_URL_BYTES, PARAMETERS, ViewParameters, read_parameters
from tests.gateway.views.support import ViewSite


def read(query: str = "", body: bytes | None = None) -> ViewParameters:
    """Read parameters as a handler does."""
    request = Request("GET" if body is None else "POST", b"/", query.encode(), {}, body or b"", body_limit=9)
    return read_parameters(request)


def sent(parameters: ViewParameters) -> dict[str, str]:
    """Return what the node is asked, decoded."""
    return dict(parse_qsl(parameters.query.encoded, keep_blank_values=True))


# name, text in the query string, what is sent
ACCEPTED = [
    ("startkey", '["a", 1.00]', {"startkey": '["a", 1.00]'}),
    ("startkey", "123456789012345678901234567890", {"startkey": "123456789012345678901234567890"}),
    ("endkey", '"x&y+z%\ufff0"', {"endkey": '"x&y+z%\ufff0"'}),
    ("key", "null", {"key": "null"}),
    ("key", "{}", {"key": "{}"}),
    ("keys", '["a",["b"]]', {"keys": '["a",["b"]]'}),
    ("keys", "[]", {"keys": "[]"}),
    ("mapkey_range", '["a"]', {"startkey": '"a"'}),
    ("mapkey_range", '[1,["\u00e9"]]', {"startkey": "1", "endkey": '["\u00e9"]'}),
    ("startkey_docid", "a b", {"startkey_docid": "a b"}),
    ("endkey_docid", "12", {"endkey_docid": "12"}),
    ("dockey_range", '["a","b"]', {"startkey_docid": "a", "endkey_docid": "b"}),
    ("inclusive_end", "False", {"inclusive_end": "false"}),
    ("descending", "true", {"descending": "true"}),
    ("limit", "0", {"limit": "0"}),
    ("skip", "007", {"skip": "7"}),
    ("reduce", "false", {"reduce": "false"}),
    ("group", "TRUE", {"group": "true"}),
    ("group_level", "2", {"group_level": "2"}),
    ("stale", "OK", {"stale": "ok"}),
    ("stale", "update_after", {"stale": "update_after"}),
    ("stale", "false", {"stale": "false"}),
    ("on_error", "stop", {"on_error": "stop"}),
    ("on_error", "continue", {}),  # the server's default
    ("connection_timeout", "60000", {"connection_timeout": "60000"}),
    ("debug", "true", {"debug": "true"}),
    ("full_set", "true", {"full_set": "true"}),
    ("include_docs", "true", {}),
    ("dev", "true", {}),
]

BAD_JSON = ["", "abc", "'a'", "[1,", "NaN", "1 2"]
BAD_BOOLEANS = ["", "1", "yes", "nil", "true "]
BAD_COUNTS = ["", "-1", "1.5", "abc", "1e3", "99999999999999999", "9007199254740992", "+1", "٣"]
REFUSED_TEXTS = {
    **dict.fromkeys(("startkey", "endkey", "key"), BAD_JSON),
    "keys": [*BAD_JSON, "1", "{}", '"a"'],
    "mapkey_range": [*BAD_JSON, "[]", "[1,2,3]", '"a"', "{}"],
    "dockey_range": [*BAD_JSON, "[]", '["a","b","c"]', "[1]", '["a",null]'],
    **dict.fromkeys(
        ("inclusive_end", "descending", "reduce", "group", "debug", "full_set", "include_docs", "dev"),
        BAD_BOOLEANS,
    ),
    **dict.fromkeys(("limit", "skip", "group_level"), BAD_COUNTS),
    "connection_timeout": [*BAD_COUNTS, "0", "2147483648"],
    "stale": ["", "maybe", "true", "ok "],
    "on_error": ["", "ignore"],
    "startkey_docid": [],  # any text is some document's id
    "endkey_docid": [],
}

NOT_BOOLEANS: list[Any] = [None, 1, 0, "true", [], {}]
NOT_COUNTS: list[Any] = [None, -1, 1.5, 1.0, "1", True, [], 2**53]
NOT_IDS: list[Any] = [None, 1, True, [], {}]
REFUSED_VALUES: dict[str, list[Any]] = {
    **dict.fromkeys(("startkey", "endkey", "key"), []),  # any JSON is some key
    "keys": [None, 1, "[]", {}],
    "mapkey_range": [None, "a", [], [1, 2, 3], {}],
    "dockey_range": [None, "a", [], [1], ["a", "b", "c"]],
    **dict.fromkeys(
        ("inclusive_end", "descending", "reduce", "group", "debug", "full_set", "include_docs", "dev"),
        NOT_BOOLEANS,
    ),
    **dict.fromkeys(("limit", "skip", "group_level"), NOT_COUNTS),
    "connection_timeout": [*NOT_COUNTS, 0],
    "stale": [None, 1, "true", "maybe", []],
    "on_error": [None, 1, "ignore", True],
    **dict.fromkeys(("startkey_docid", "endkey_docid"), NOT_IDS),
}


class AcceptedTests(SynchronousTestCase):
    """Accepted parameters, and the resulting request to the node."""

    def test_query_string(self) -> None:
        """Each parameter as text."""
        for name, text, expected in ACCEPTED:
            self.assertEqual(sent(read(f"{name}={quote(text)}")), expected, (name, text))

    def test_every_parameter_is_tried(self) -> None:
        """The tables here have every parameter, including all of SDK 1.2's."""
        names = set(PARAMETERS)
        self.assertEqual({name for name, _, _ in ACCEPTED}, names)
        self.assertEqual(set(REFUSED_TEXTS), names)
        self.assertEqual(set(REFUSED_VALUES), names)
        sdk = {getattr(Params, name) for name in dir(Params) if name.isupper()}
        self.assertEqual(sdk - names, {"mapkey_single", "mapkey_multi"})
        self.assertEqual(names | set(ALIASES), sdk | names | set(ALIASES))

    def test_body(self) -> None:
        """The same as JSON values, digits untouched."""
        for name, text, expected in ACCEPTED:
            value = json.dumps(text) if PARAMETERS[name].form.startswith(("a document's", "one of")) else text
            if name == "skip":
                value = "7"
            body = b'{"%b" : %b}' % (
                name.encode(),
                value.lower().encode() if text != value else value.encode(),
            )
            if name in ("inclusive_end", "group"):
                body = body.lower()
            self.assertEqual(sent(read(body=body)), expected, body)

    def test_aliases(self) -> None:
        """The server's spelling, and the SDK's second names, mean the same."""
        for other, name in ALIASES.items():
            text = {"keys": "[1]"}.get(name, '"a"')
            self.assertEqual(sent(read(f"{other}={quote(text)}")), sent(read(f"{name}={quote(text)}")), other)
            body = json.dumps({other: loads(text.encode())}).encode()
            self.assertEqual(set(sent(read(body=body))), {name})

    def test_flags_of_the_gateway(self) -> None:
        """``dev`` and ``include_docs`` are not the node's."""
        self.assertEqual(read()[1:], (False, False))
        self.assertEqual(read("dev=true&include_docs=false")[1:], (True, False))
        self.assertEqual(read(body=b'{"include_docs":true}')[1:], (False, True))

    def test_stale_as_the_sdk_has_it(self) -> None:
        """In JSON also a bool."""
        self.assertEqual(sent(read(body=b'{"stale":true}')), {"stale": "ok"})
        self.assertEqual(sent(read(body=b'{"stale":false}')), {"stale": "false"})

    def test_both_places(self) -> None:
        """Some parameters there, some here; an empty body is no body."""
        self.assertEqual(sent(read("limit=1", b'{"skip":2}')), {"limit": "1", "skip": "2"})
        self.assertEqual(sent(read("limit=1", b"")), {"limit": "1"})
        self.assertEqual(sent(read("limit=1", b"{}")), {"limit": "1"})

    def test_plus_is_a_blank(self) -> None:
        """As in forms."""
        self.assertEqual(sent(read("startkey_docid=a+b%2B")), {"startkey_docid": "a b+"})

    def test_long_keys_go_by_post(self) -> None:
        """Whatever way they came."""
        site = ViewSite()
        keys = [f"key {number}" for number in range(2000)]
        asked = site.asked("?limit=3", json.dumps({"keys": keys}).encode())
        self.assertEqual((asked.method, asked.path.partition("?")[2]), ("POST", "limit=3"))
        self.assertEqual(json.loads(asked.body), {"keys": keys})

    def test_what_the_node_is_asked(self) -> None:
        """Path and query, percent-encoded once."""
        asked = ViewSite().asked("?dev=true&key=%22a%2Bb%22&include_docs=true&reduce=false")
        self.assertEqual(asked.path, "/b/_design/dev_d/_view/v?key=%22a%2Bb%22&reduce=false")
        self.assertEqual((asked.method, asked.body), ("GET", None))

    def test_dev_is_not_doubled(self) -> None:
        """A name that has the prefix keeps it."""
        for path, expected in (
            ("/v1/buckets/b/views/dev_d/v?dev=true", "dev_d"),
            ("/v1/buckets/b/views/dev_d/v", "dev_d"),
            ("/v1/buckets/b/views/d/v?dev=false", "d"),
        ):
            site = ViewSite()
            site.send(site.client(), f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
            self.assertEqual(site.designs, [(expected, "v")])


class RefusedTests(SynchronousTestCase):
    """400, with the name and the accepted values, before the cluster is asked."""

    def check(self, name: str, query: str, body: bytes | None) -> None:
        with self.assertRaises(Exception) as raised:
            read(query, body)
        refusal: Any = raised.exception
        self.assertEqual(getattr(refusal, "problem", None) and refusal.problem.code, "InvalidArgument", query)
        self.assertTrue(refusal.message.startswith(f"{name}: "), refusal.message)
        self.assertIn(f"expected {PARAMETERS[ALIASES.get(name, name)].form}", refusal.message)
        self.assertLess(len(refusal.message), 300)

    def test_texts(self) -> None:
        """Every wrong text of every parameter, by each of its names."""
        for name, texts in REFUSED_TEXTS.items():
            for spelling in (name, *(other for other, one in ALIASES.items() if one == name)):
                for text in (*texts, *([] if not texts else ["x" * 1000])):
                    self.check(spelling, f"{spelling}={quote(text)}", None)

    def test_values(self) -> None:
        """Every wrong JSON value."""
        for name, values in REFUSED_VALUES.items():
            for spelling in (name, *(other for other, one in ALIASES.items() if one == name)):
                for value in values:
                    self.check(spelling, "", json.dumps({spelling: value}).encode())

    def test_over_http(self) -> None:
        """Status, code and text reach the caller."""
        site = ViewSite()
        self.assertEqual(
            site.refused("?limit=-1"),
            (
                400,
                "InvalidArgument",
                "limit: '-1' is invalid; expected a whole number from 0 to 9007199254740991",
            ),
        )
        self.assertEqual(site.refused("", b'{"descending":1}')[0:2], (400, "InvalidArgument"))

    def test_unknown(self) -> None:
        """An unknown parameter is named; so is an unknown member."""
        for query, body in (
            ("?startKey=1", b""),
            ("", b'{"startKey":1}'),
            ("?count=1", b""),
            ("?_type=replica", b""),
            ("?conflicts=true", b""),
        ):
            status, code, message = ViewSite().refused(query, body)
            self.assertEqual((status, code), (400, "InvalidArgument"))
            self.assertIn("unknown", message)
            self.assertIn("start_key_doc_id", message)

    def test_given_twice(self) -> None:
        """Whatever the spelling and the place."""
        for query, body, words in (
            ("?limit=1&limit=1", b"", "'limit' is given twice"),
            ("?limit=1", b'{"limit":1}', "limit is given twice: in the query string and in the body"),
            ("?startkey=1&start_key=1", b"", "start_key cannot be given together with startkey"),
            ("?startkey=1", b'{"start_key":1}', "start_key cannot be given together with startkey"),
            ("?key=1&mapkey_single=2", b"", "mapkey_single cannot be given together with key"),
            ("?endkey=1&mapkey_range=[1,2]", b"", "mapkey_range cannot be given together with endkey"),
            ("?mapkey_range=[1]&startkey=1", b"", "startkey cannot be given together with mapkey_range"),
            ("?dockey_range=[%22a%22]", b'{"startkey_docid":"a"}', "both set startkey_docid"),
        ):
            self.assertIn(words, ViewSite().refused(query, body)[2])

    def test_bodies(self) -> None:
        """A body that is not a JSON object, and a body where none is read."""
        for body, words in ((b"[]", "not an object"), (b"{", "not JSON"), (b'{"a', "not JSON")):
            self.assertIn(words, ViewSite().refused("", body)[2])
        site = ViewSite()
        reply = site.request("GET", "/v1/buckets/b/views/d/v", b"{}")
        self.assertEqual((reply.status, site.streams), (400, []))

    def test_too_deep(self) -> None:
        """A key that is nested too deeply is refused, and is not a fault."""
        for depth in (900, 990, 1000, 1023, 1024, 5000, 100000):
            text = b"[" * depth + b"]" * depth
            try:
                taken = sent(read(body=b'{"key":' + text + b"}"))
            except Refusal as refusal:
                self.assertEqual(refusal.problem.code, "InvalidArgument")
                self.assertGreater(depth, 900)
            else:
                self.assertEqual(taken, {"key": text.decode()})
                self.assertLess(depth, 1025)

    def test_too_long(self) -> None:
        """Parameters that do not fit into the node's request line; keys are sent separately."""
        half = MAX_URL_BYTES // 2
        self.assertEqual(len(read(body=json.dumps({"key": "x" * half}).encode()).query.encoded), half + 10)
        message = ViewSite().refused("", json.dumps({"key": "x" * MAX_URL_BYTES}).encode())[2]
        self.assertIn(str(MAX_URL_BYTES), message)

    def test_half_of_a_surrogate_pair(self) -> None:
        """It is in no document's id."""
        with self.assertRaises(Exception) as raised:
            read(body=b'{"startkey_docid":"\\ud800"}')
        self.assertEqual(raised.exception.problem.code, "InvalidArgument")  # type: ignore[attr-defined]

    def test_documents_of_reduced_rows(self) -> None:
        """No single document emitted those."""
        for query in ("reduce=true", "group=true", "group_level=1"):
            status, _, message = ViewSite().refused(f"?include_docs=true&{query}")
            self.assertEqual(status, 400)
            self.assertIn(query, message)
        for query in ("reduce=false", "group=false", "group_level=0"):
            self.assertTrue(read(f"include_docs=true&{query}").include_docs)
