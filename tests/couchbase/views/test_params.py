"""Options of view queries: types, encodings, ranges, refusals."""

import copy
import json
import pickle
from urllib.parse import parse_qs, unquote

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from couchbase.exceptions import ArgumentError
from couchbase.views.params import (
    ONERROR_CONTINUE,
    ONERROR_STOP,
    STALE_OK,
    STALE_UPDATE_AFTER,
    STALE_UPDATE_BEFORE,
    UNSPEC,
    Params,
    Query,
    make_dvpath,
    make_options_string,
)

BOOLEANS = ("descending", "reduce", "group", "inclusive_end", "full_set", "debug")
NUMBERS = ("skip", "limit", "group_level", "connection_timeout")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


class TypesTests(SynchronousTestCase):
    """Accepted values of each type of option, and their encoding."""

    def sent(self, **options):
        """Return the query string of options."""
        return Query(**options).encoded

    def test_booleans(self):
        """bool, number and the two words."""
        for name in BOOLEANS:
            for value in (True, 1, 2.5, "true"):
                self.assertEqual(self.sent(**{name: value}), f"{name}=true")
            for value in (False, 0, "false"):
                self.assertEqual(self.sent(**{name: value}), f"{name}=false")
            for value in ("True", "", None, [], {}, "1", b"true"):
                self.assertRaises(ArgumentError, Query, **{name: value})

    def test_numbers(self):
        """Whatever int() takes, but no bool."""
        for name in NUMBERS:
            for value, text in ((5, "5"), (-1, "-1"), (3.9, "3"), ("12", "12"), (" 7 ", "7")):
                self.assertEqual(self.sent(**{name: value}), f"{name}={text}")
            for value in (True, None, "x", "1.5", [], float("nan"), float("inf"), ""):
                self.assertRaises(ArgumentError, Query, **{name: value})

    def test_json_values(self):
        """JSON values are the output of json.dumps, percent-encoded."""
        self.assertEqual(self.sent(startkey=["a b", None]), "startkey=%5B%22a%20b%22%2C%20null%5D")
        self.assertEqual(self.sent(mapkey_single="\u00e9"), "key=%22%5Cu00e9%22")
        self.assertEqual(self.sent(endkey=None), "endkey=null")
        for value in (object(), {1, 2}, b"x"):
            error = self.assertRaises(ArgumentError, Query, key=value)
            self.assertIs(error.objextra, value)

    @given(JSON)
    def test_json_values_arrive(self, value):
        """The parameter, decoded, is the value."""
        sent = Query(key=value).encoded.removeprefix("key=")
        self.assertEqual(json.loads(unquote(sent)), value)

    def test_json_arrays(self):
        """``keys`` is an array."""
        self.assertEqual(self.sent(mapkey_multi=("a", 1)), "keys=%5B%22a%22%2C%201%5D")
        for value in ("a", 1, {}, None):
            self.assertRaises(ArgumentError, Query, keys=value)

    def test_strings(self):
        """Ids of documents: text, without quotes."""
        self.assertEqual(self.sent(startkey_docid="a&b"), "startkey_docid=a%26b")
        self.assertEqual(self.sent(endkey_docid=5), "endkey_docid=5")
        for value in (True, None, [], b"x"):
            self.assertRaises(ArgumentError, Query, startkey_docid=value)

    def test_stale(self):
        """Three words, or a boolean."""
        for value, text in (
            (STALE_OK, "ok"),
            (STALE_UPDATE_BEFORE, "false"),
            (STALE_UPDATE_AFTER, "update_after"),
            (True, "ok"),
            (False, "false"),
        ):
            self.assertEqual(self.sent(stale=value), f"stale={text}")
        for value in ("OK", "later", None, []):
            self.assertRaises(ArgumentError, Query, stale=value)

    def test_on_error(self):
        """Two words."""
        self.assertEqual(self.sent(on_error=ONERROR_CONTINUE), "on_error=continue")
        self.assertEqual(self.sent(on_error=ONERROR_STOP), "on_error=stop")
        for value in ("go", True, None):
            self.assertRaises(ArgumentError, Query, on_error=value)


class QueryTests(SynchronousTestCase):
    """Options together."""

    def test_properties(self):
        """Each option can be read and set; UNSPEC stands for unset, and removes."""
        query = Query(limit=5)
        self.assertEqual((query.limit, query.skip), (5, UNSPEC))
        query.skip = 3
        query.mapkey_single = "k"
        self.assertEqual(query.key, "k")
        self.assertEqual(query.encoded, "limit=5&skip=3&key=%22k%22")
        query.limit = UNSPEC
        self.assertEqual((query.encoded, query.limit), ("skip=3&key=%22k%22", UNSPEC))
        self.assertRaises(ArgumentError, setattr, query, "skip", "x")
        self.assertRaises(AttributeError, setattr, query, "nope", 1)
        self.assertEqual(repr(Query(limit=5)), "Query:'limit=5'")
        self.assertEqual(Query().encoded, "")

    def test_order(self):
        """Options are sent in the order in which they were set."""
        self.assertEqual(Query(stale="ok", limit=1, debug=True).encoded, "stale=ok&limit=1&debug=true")

    def test_ranges(self):
        """One or two elements, of which either may be left open."""
        for value, sent in (
            (["a", "b"], "startkey=%22a%22&endkey=%22b%22"),
            (("a",), "startkey=%22a%22"),
            (["a"], "startkey=%22a%22"),
            ([UNSPEC, "b"], "endkey=%22b%22"),
            ([], ""),
            ((), ""),
            (UNSPEC, ""),
        ):
            self.assertEqual(Query(mapkey_range=value).encoded, sent)
        self.assertEqual(Query(dockey_range=["a", "b"]).encoded, "startkey_docid=a&endkey_docid=b")
        query = Query(mapkey_range=["a", "a" + Query.STRING_RANGE_END])
        self.assertEqual(parse_qs(query.encoded)["endkey"], ['"a\\u0fff"'])
        query.mapkey_range = ["c", "d"]
        self.assertEqual(query.mapkey_range, ["c", "d"])
        query.mapkey_range = []
        self.assertEqual((query.encoded, query.mapkey_range), ("", UNSPEC))
        query = Query(mapkey_range=["a", "b"])
        query.startkey = "x"
        self.assertEqual(query.encoded, "startkey=%22x%22&endkey=%22b%22")

    def test_wrong_ranges(self):
        """Too long, no list, or together with what it stands for; a refused range changes nothing."""
        for value in (["a", "b", "c"], "ab", 5, None, {"a": 1}, [object()]):
            self.assertRaises(ArgumentError, Query, mapkey_range=value)
        self.assertRaises(ArgumentError, Query, dockey_range=[True])
        for taken in ("startkey", "endkey"):
            self.assertRaises(ArgumentError, Query, **{taken: 1, "mapkey_range": [1, 2]})
        query = Query(mapkey_range=["a", "b"])
        self.assertRaises(ArgumentError, setattr, query, "mapkey_range", ["c", object()])
        self.assertEqual(query.encoded, "startkey=%22a%22&endkey=%22b%22")

    def test_unknown_options(self):
        """Refused, or with unrecognized_ok sent as they are, last."""
        self.assertRaises(ArgumentError, Query, nope=1)
        query = Query(unrecognized_ok=True, nope="a b", limit=1)
        self.assertEqual(query.encoded, "limit=1&nope=a b")
        self.assertRaises(ArgumentError, Query, unrecognized_ok=True, nope=True)
        query.update(nope=UNSPEC)
        self.assertEqual(query.encoded, "limit=1")

    def test_passthrough(self):
        """Values go as they are; names are still checked."""
        query = Query(passthrough=True, startkey="%22a%22", limit="all")
        self.assertEqual(query.encoded, "startkey=%22a%22&limit=all")
        self.assertRaises(ArgumentError, Query, passthrough=True, nope="1")
        self.assertRaises(ArgumentError, Query, passthrough=True, limit=True)
        keys = Query(passthrough=True, keys="%5B1%5D")
        self.assertEqual(keys._long_query_encoded, ("", '{"keys":[1]}'))

    def test_text(self):
        """A query string goes first, verbatim."""
        query = Query.from_any("limit=5&x=y z")
        query.skip = 1
        self.assertEqual(query.encoded, "limit=5&x=y z&skip=1")
        self.assertTrue(query.has_blob)
        self.assertFalse(Query(limit=1).has_blob)
        self.assertTrue(Query(passthrough=True).has_blob)
        self.assertTrue(Query(unrecognized_ok=True).has_blob)

    def test_from_any(self):
        """A Query is copied, a dict is options; else ArgumentError."""
        query = Query(keys=["a"])
        other = Query.from_any(query)
        other.limit = 5
        self.assertEqual((query.encoded, other.keys), ("keys=%5B%22a%22%5D", ["a"]))
        self.assertEqual(Query.from_any({"limit": 1}).encoded, "limit=1")
        for wrong in (5, None, ["limit"]):
            self.assertRaises(ArgumentError, Query.from_any, wrong)

    def test_update(self):
        """Changes the query, or with copy another one."""
        query = Query(limit=1)
        self.assertIs(query.update(skip=2), query)
        changed = query.update(copy=True, limit=9)
        self.assertEqual((query.encoded, changed.encoded), ("limit=1&skip=2", "limit=9&skip=2"))

    def test_long_queries(self):
        """Keys apart, as a JSON body."""
        self.assertEqual(Query(limit=1, keys=["a", 2])._long_query_encoded, ("limit=1", '{"keys":["a", 2]}'))
        self.assertEqual(Query(limit=1)._long_query_encoded, ("limit=1", "{}"))

    def test_unspec(self):
        """False, empty, one of its kind, also after copying and pickling."""
        self.assertEqual((bool(UNSPEC), str(UNSPEC), repr(UNSPEC)), (False, "", "<Placeholder>"))
        for other in (copy.copy(UNSPEC), copy.deepcopy(UNSPEC), pickle.loads(pickle.dumps(UNSPEC))):
            self.assertIs(other, UNSPEC)

    def test_names(self):
        """Params names every option; each is a property."""
        names = {value for name, value in vars(Params).items() if name.isupper()}
        properties = {name for name in vars(Query) if isinstance(getattr(Query, name), property)}
        self.assertEqual(names, properties - {"encoded", "has_blob", "_long_query_encoded"})
        self.assertEqual(Params.STARTKEY, "startkey")

    def test_helpers(self):
        """Strings and paths for requests by hand."""
        self.assertEqual(make_options_string({"limit": 5}), "limit=5")
        self.assertEqual(make_options_string(Query(limit=5)), "limit=5")
        self.assertEqual(make_options_string({"x": "1"}, unrecognized_ok=True), "x=1")
        self.assertEqual(make_options_string({"key": "1 "}, passthrough=True), "key=1 ")
        self.assertRaises(ArgumentError, make_options_string, {"x": "1"})
        self.assertEqual(make_dvpath("beer", "by_name"), "_design/beer/_view/by_name?")
