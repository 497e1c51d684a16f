"""Parameters of a view query: the tables of the reference, line by line."""

from __future__ import annotations

import json
from time import thread_time
from typing import Any
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from couchnode.cluster.strictjson import read_json
from couchnode.views.parameters import MAX_KEYS, ParameterError, ViewQuery, parse_query, read_body

BAD, PARSE = "bad_request", "query_parse_error"
BAD_JSON = 'invalid UTF-8 JSON: {{error,{1,"lexical error: invalid char in json text.\\n"}},"%s"}'
BAD_BOOLEAN = 'Invalid boolean parameter: "%s"'
BAD_INTEGER = 'Invalid value for integer parameter: "%s"'
NEGATIVE = 'Invalid value for positive integer parameter: "%s"'
BAD_GROUP = "Invalid URL parameter 'group' or  'group_level' for non-reduce view."

GOOD: list[tuple[str, dict[str, Any]]] = [
    ("", {}),
    ("key=%22a%22", {"startkey": "a", "endkey": "a"}),
    ("key=1&endkey=2", {"startkey": 1, "endkey": 2}),
    ("startkey=[1,null]", {"startkey": [1, None]}),
    ("start_key=%5b%22a+b%22%5d", {"startkey": ["a b"]}),
    ("end_key={%22b%22:1,%22a%22:2}", {"endkey": {"b": 1, "a": 2}}),
    ("startkey=null", {"startkey": None}),
    ("startkey_docid=x%22y&endkey_docid=z", {"startkey_docid": 'x"y', "endkey_docid": "z"}),
    ("start_key_doc_id=x&end_key_doc_id=z", {"startkey_docid": "x", "endkey_docid": "z"}),
    ("inclusive_end=FALSE", {"inclusive_end": False}),
    ("descending=true", {"descending": True}),
    ("limit=0", {"limit": 0}),
    ("limit=10&limit=3", {"limit": 3}),
    ("skip=7", {"skip": 7}),
    ("keys=[1,%22a%22]", {"keys": [1, "a"]}),
    ("debug=true", {"debug": True}),
    ("on_error=stop", {"on_error": "stop"}),
    ("reduce=false", {"reduce": False}),
    ("group=false", {}),
    ("&&unknown=1&include_docs=true&conflicts=false", {}),
]

DEFAULTS: dict[str, Any] = {
    "inclusive_end": True,
    "descending": False,
    "skip": 0,
    "reduce": False,
    "group": 0,
    "debug": False,
    "on_error": "continue",
}

WRONG: list[tuple[str, bool, str, str]] = [
    ("stale=maybe", False, PARSE, "stale only available as stale=ok, stale=update_after or stale=false"),
    ("stale=", False, PARSE, "stale only available as stale=ok, stale=update_after or stale=false"),
    ("key=abc", False, BAD, BAD_JSON % "abc"),
    ("startkey=", False, BAD, BAD_JSON % ""),
    ("endkey=[1", False, BAD, BAD_JSON % "[1"),
    ("key=NaN", False, BAD, BAD_JSON % "NaN"),
    ("key=[1e999]", False, BAD, BAD_JSON % "[1e999]"),
    ("keys=1", False, BAD, "`keys` parameter is not an array."),
    ("keys=x", False, BAD, BAD_JSON % "x"),
    ("descending=1", False, PARSE, BAD_BOOLEAN % "1"),
    ("inclusive_end=", False, PARSE, BAD_BOOLEAN % ""),
    ("debug=yes", False, PARSE, BAD_BOOLEAN % "yes"),
    ("full_set=no", False, PARSE, BAD_BOOLEAN % "no"),
    ("group=x", True, PARSE, BAD_BOOLEAN % "x"),
    ("reduce=x", True, PARSE, BAD_BOOLEAN % "x"),
    ("limit=abc", False, PARSE, BAD_INTEGER % "abc"),
    ("limit=1.5", False, PARSE, BAD_INTEGER % "1.5"),
    ("limit=-1", False, PARSE, NEGATIVE % "-1"),
    ("skip=-5", False, PARSE, NEGATIVE % "-5"),
    ("group_level=x", True, PARSE, BAD_INTEGER % "x"),
    ("count=3", False, PARSE, "Query parameter 'count' is now 'limit'."),
    ("on_error=panic", False, BAD, "Query parameter `on_error` must be `continue` or `stop`"),
    ("connection_timeout=x", False, BAD, "Query parameter `connection_timeout` must be an integer"),
    ("connection_timeout=1.5", False, BAD, "Query parameter `connection_timeout` must be an integer"),
    ("reduce=true", False, PARSE, "Invalid URL parameter `reduce` for map view."),
    (
        "group=true&group_level=1",
        True,
        PARSE,
        "Query parameter `group_level` is not compatible with `group`",
    ),
    (
        "group=false&group_level=0",
        True,
        PARSE,
        "Query parameter `group_level` is not compatible with `group`",
    ),
    ("group=true", False, PARSE, BAD_GROUP),
    ("group_level=1", False, PARSE, BAD_GROUP),
    ("group=true&reduce=false", True, PARSE, BAD_GROUP),
    ("keys=[]&startkey=1", False, PARSE, "Query parameter `start_key` is not compatible with multi-get"),
    ("keys=[]&key=1", False, PARSE, "Query parameter `start_key` is not compatible with multi-get"),
    ("keys=[]&endkey=1", False, PARSE, "Query parameter `end_key` is not compatible with multi-get"),
    ("keys=[]", True, PARSE, "Multi-key fetchs for reduce view must include `group=true`"),
    ("keys=[]&group_level=2", True, PARSE, "Multi-key fetchs for reduce view must include `group=true`"),
    ("key=%ff", False, BAD, "the query string is not UTF-8 in percent-encoding: key=%ff"),
]

WRONG_BODIES: list[tuple[bytes, str]] = [
    (b"", "The body of a POST must be a JSON object, {} for none."),
    (b"[]", "The body of a POST must be a JSON object, {} for none."),
    (b"{", "The body of a POST must be a JSON object, {} for none."),
    (b"[" * 100_000, "The body of a POST must be a JSON object, {} for none."),
    (b'{"keys":1}', "`keys` member must be a array."),
    (b'{"connection_timeout":"1"}', "Query parameter `connection_timeout` must be an integer"),
    (b'{"connection_timeout":true}', "Query parameter `connection_timeout` must be an integer"),
    (b'{"on_error":1}', "Query parameter `on_error` must be `continue` or `stop`"),
]


class ParameterTests(SynchronousTestCase):
    """Valid and invalid parameters."""

    def test_good(self) -> None:
        """Each parameter in both spellings, the last of repeated ones, and what the server ignores."""
        for text, expected in GOOD:
            self.assertEqual(parse_query(text, None, False).plan, {**DEFAULTS, **expected}, text)

    def test_wrong(self) -> None:
        """Each wrong value and combination has the server's code and text."""
        for text, has_reduce, error, reason in WRONG:
            fault = self.assertRaises(ParameterError, parse_query, text, None, has_reduce)
            self.assertEqual((fault.error, fault.reason), (error, reason), text)

    def test_reduce(self) -> None:
        """A view with a reduce function reduces by default; groups are levels, the whole key is -1."""
        for text, reduce, group in (
            ("", True, 0),
            ("reduce=true", True, 0),
            ("reduce=false", False, 0),
            ("group=true", True, -1),
            ("group_level=2", True, 2),
            ("group_level=0", True, 0),
            ("group=true&keys=[1]", True, -1),
            ("reduce=false&keys=[1]", False, 0),
        ):
            plan = parse_query(text, None, True).plan
            self.assertEqual((plan["reduce"], plan["group"]), (reduce, group), text)

    def test_how_fresh(self) -> None:
        """Staleness, the full set and the time limit are not the worker's business."""
        self.assertEqual(self.outside(""), (None, False, 60_000))
        for value in ("ok", "false", "update_after", "UPDATE_AFTER", "Ok"):
            self.assertEqual(self.outside(f"stale={value}")[0], value.lower())
        self.assertEqual(self.outside("full_set=true&connection_timeout=5"), (None, True, 5))

    def outside(self, text: str) -> tuple[str | None, bool, int]:
        """Return the parts of a query that are not in its plan."""
        query: ViewQuery = parse_query(text, None, False)
        return query.stale, query.full_set, query.connection_timeout_ms

    def test_body(self) -> None:
        """A POST has keys, on_error and connection_timeout in its body; the others are in the URL."""
        body = b'{"keys":[{"b":1,"a":2},null],"on_error":"stop","connection_timeout":9,"limit":1}'
        query = parse_query("skip=1", body, False)
        self.assertEqual(query.connection_timeout_ms, 9)
        expected = {**DEFAULTS, "skip": 1, "keys": [{"b": 1, "a": 2}, None], "on_error": "stop"}
        self.assertEqual(query.plan, expected)
        self.assertEqual(list(query.plan["keys"][0]), ["b", "a"])
        self.assertEqual(parse_query("", b"{}", False).plan, DEFAULTS)

    def test_bodies_that_hold_no_numbers(self) -> None:
        """A body has only what JSON has; and the number of keys of a query is limited."""
        for body in (b'{"keys":[NaN]}', b'{"keys":[-Infinity]}', b'{"keys":[[1e999]]}'):
            fault = self.assertRaises(ParameterError, parse_query, "", body, False)
            self.assertEqual(fault.error, BAD)
        many = b'{"keys":[%b]}' % b",".join([b"1"] * (MAX_KEYS + 1))
        fault = self.assertRaises(ParameterError, parse_query, "", many, False)
        self.assertEqual(fault.reason, "`keys` takes at most 100000 keys")

    def test_repeated_names(self) -> None:
        """A body whose last name is repeated is refused at once: searching for it took half a minute."""
        body = b'{%b,"n49999":1}' % b",".join(b'"n%d":1' % number for number in range(50_000))
        begun = thread_time()
        self.assertRaises(ParameterError, parse_query, "", body, False)
        self.assertLess(thread_time() - begun, 3)

    def test_levels(self) -> None:
        """Nesting is limited, and equally on every Python; brackets in strings do not count."""
        wide = ",".join(['[[],{},"\\\\\\"]]]]{"]'] * 1000)
        for opened, closed, levels in (("[", "]", 1), ('{"[":', "}", 1), ('["]]}","\\\\",{"a":', "}]", 2)):
            for count, is_good in ((897 // levels, True), (897 // levels + 1, False)):
                key = f"{opened * count}[{wide}]{closed * count}".encode()
                if is_good:
                    self.assertEqual(read_json(key), json.loads(key))
                else:
                    self.assertRaises(ValueError, read_json, key)

    def test_read_before(self) -> None:
        """What was read from a body counts, and what is wrong with it is raised, as if it were read here."""
        read = read_body(b'{"keys":[1]}')
        self.assertEqual(parse_query("skip=1", read, False), parse_query("skip=1", b'{"keys":[1]}', False))
        for body, reason in WRONG_BODIES:
            fault = self.assertRaises(ParameterError, parse_query, "", read_body(body), False)
            self.assertEqual((fault.error, fault.reason), (BAD, reason), body[:30])

    def test_wrong_bodies(self) -> None:
        """Each wrong body has its text."""
        for body, reason in WRONG_BODIES:
            fault = self.assertRaises(ParameterError, parse_query, "", body, False)
            self.assertEqual((fault.error, fault.reason), (BAD, reason), body[:30])

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        """A document id is taken literally; any text is either parsed or refused."""
        encoded = quote(text, safe="")
        self.assertEqual(parse_query(f"startkey_docid={encoded}", None, False).plan["startkey_docid"], text)
        for name in ("key", "limit", "stale", "keys", "descending", "connection_timeout", "on_error"):
            try:
                parse_query(f"{name}={text}", None, True)
                parse_query(f"{name}={encoded}", text.encode(), True)
            except ParameterError as fault:
                self.assertIn(fault.error, (BAD, PARSE))
