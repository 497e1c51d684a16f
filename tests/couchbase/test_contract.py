"""Promises of docs/sdk-1.2.md without another test: names, signatures, tables, printed forms.

One test for what one row of that page says, or a few of them. Standard library only, and Python 3.9.
"""

import importlib
import inspect
from unittest import TestCase

import couchbase
from couchbase import (
    FMT_AUTO,
    FMT_BYTES,
    FMT_JSON,
    FMT_PICKLE,
    FMT_UTF8,
    Connection,
    Couchbase,
    result,
    user_constants,
)
from couchbase.admin import Admin
from couchbase.asynchronous import Async
from couchbase.asynchronous.view import AsyncViewBase
from couchbase.exceptions import (
    CouchbaseError,
    ValueFormatError,
)
from couchbase.items import Item, ItemCollection, ItemOptionDict, ItemSequence
from couchbase.protocol.clustermap import ClusterMap, NodeAddress
from couchbase.protocol.constants import COUNTER_NO_CREATE, Opcode
from couchbase.result import AsyncResult
from couchbase.transcoder import Transcoder, TranscoderPP
from couchbase.views import params
from couchbase.views.iterator import RowProcessor, View, ViewRow
from couchbase.views.params import Query

STORE = "key, value, cas=0, ttl=0, format=None, persist_to=0, replicate_to=0"
STORE_MULTI = "keys, ttl=0, format=None, persist_to=0, replicate_to=0"
COUNTER = "key, amount=1, initial=None, ttl=0"
COUNTER_MULTI = "keys, amount=1, initial=None, ttl=0"

KEY_VALUE = {
    "set": STORE,
    "add": "key, value, ttl=0, format=None, persist_to=0, replicate_to=0",
    "replace": STORE,
    "append": STORE,
    "prepend": STORE,
    "get": "key, ttl=0, quiet=None, replica=False, no_format=False",
    "touch": "key, ttl=0",
    "lock": "key, ttl=0",
    "unlock": "key, cas",
    "delete": "key, cas=0, quiet=None, persist_to=0, replicate_to=0",
    "incr": COUNTER,
    "decr": COUNTER,
    "arithmetic": COUNTER,
    "observe": "key, master_only=False",
    "endure": "key, persist_to=-1, replicate_to=-1, cas=0, check_removed=False, timeout=5.0, interval=0.010",
    "rget": "key, replica_index=None, quiet=None",
    "stats": "keys=None",
}
MULTI = {
    "set_multi": STORE_MULTI,
    "add_multi": STORE_MULTI,
    "replace_multi": STORE_MULTI,
    "append_multi": STORE_MULTI,
    "prepend_multi": STORE_MULTI,
    "get_multi": "keys, ttl=0, quiet=None, replica=False, no_format=False",
    "touch_multi": "keys, ttl=0",
    "lock_multi": "keys, ttl=0",
    "delete_multi": "keys, quiet=None, persist_to=0, replicate_to=0",
    "unlock_multi": "keys",
    "incr_multi": COUNTER_MULTI,
    "decr_multi": COUNTER_MULTI,
    "arithmetic_multi": "keys",
    "observe_multi": "keys, master_only=False",
    "endure_multi": "keys, persist_to=-1, replicate_to=-1, timeout=5.0, interval=0.010, check_removed=False",
    "rget_multi": "keys, replica_index=None, quiet=None",
}
OTHERS = {
    "append_items": "items, **kwargs",
    "prepend_items": "items, **kwargs",
    "pipeline": "",
    "durability": "persist_to=-1, replicate_to=-1, timeout=0.0",
    "errors": "clear_existing=True",
    "query": "design, view, use_devmode=False",
    "design_create": "name, ddoc, use_devmode=True, syncwait=0",
    "design_get": "name, use_devmode=True",
    "design_publish": "name, syncwait=0",
    "design_delete": "name, use_devmode=True, syncwait=0",
    "_view": "ddoc, view, use_devmode=False, params=None, unrecognized_ok=False, passthrough=False",
    "_vbmap": "key",
    "_thr_lockop": "op",
}


def parameters(function):
    """Return the parameters of a function or method, without ``self``."""
    return [one for one in inspect.signature(function).parameters.values() if one.name != "self"]


class SignatureTests(TestCase):
    """Arguments have their names, places and defaults. What we add comes after them, and is optional."""

    def check(self, function, text):
        """Compare a function with the parameters that ``text`` lists."""
        wanted = parameters(eval(f"lambda {text}: None"))  # Our own text.
        found = parameters(function)
        named = [one for one in wanted if one.kind is not one.VAR_KEYWORD]
        same = [(one.name, one.default) for one in found[: len(named)]]
        self.assertEqual(same, [(one.name, one.default) for one in named], function)
        if len(named) < len(wanted):
            self.assertTrue(any(one.kind is one.VAR_KEYWORD for one in found), function)
        for one in found[len(named) :]:
            optional = one.default is not one.empty or one.kind in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
            self.assertTrue(optional, f"{function} needs {one.name}")

    def check_all(self, cls, signatures):
        """Compare the methods of a class."""
        for name, text in signatures.items():
            self.check(getattr(cls, name), text)

    def test_key_value(self):
        """Operations of one key, of a connection and of an administrator's session."""
        for cls in (Connection, Admin):
            self.check_all(cls, KEY_VALUE)

    def test_multi(self):
        """Operations of many keys."""
        for cls in (Connection, Admin):
            self.check_all(cls, MULTI)

    def test_members(self):
        """Other methods of a connection."""
        self.check_all(Connection, OTHERS)
        self.assertIs(inspect.signature(Connection.query).parameters["itercls"].default, View)
        self.assertEqual([one.name for one in parameters(Connection._cntl)], ["op", "value", "value_type"])
        self.assertIsInstance(inspect.getattr_static(Connection, "lcb_version"), staticmethod)

    def test_connect(self):
        """``Couchbase.connect`` is a static method; ``Connection`` takes keywords only."""
        self.assertIsInstance(inspect.getattr_static(Couchbase, "connect"), staticmethod)
        defaults = {
            "bucket": None,
            "host": "localhost",
            "port": 8091,
            "password": None,
            "quiet": False,
            "config_cache": None,
            "unlock_gil": True,
            "timeout": 2.5,
            "transcoder": None,
            "lockmode": couchbase.LOCKMODE_WAIT,
        }
        text = ", ".join(f"{name}={value!r}" for name, value in defaults.items())
        self.check(Couchbase.connect, f"{text}, **kwargs")
        found = {one.name: one for one in parameters(Connection.__init__)}
        for name in (*defaults, "username", "default_format", "conncache", "_cntl"):
            self.assertIs(found[name].kind, inspect.Parameter.KEYWORD_ONLY)
        for name, value in defaults.items():
            self.assertEqual(found[name].default, value)
        self.assertIn("experimental_gevent_support", found)
        self.assertIn("_no_connect_exceptions", found)

    def test_views(self):
        """Queries, views, row processors, and the two helpers."""
        self.check(Query, "passthrough=False, unrecognized_ok=False, **options")
        self.check(Query.update, "copy=False, **options")
        self.check(
            View,
            "parent, design, view, row_processor=None, streaming=0, include_docs=False, query=None, **params",
        )
        self.check(RowProcessor.handle_rows, "rows, connection, include_docs")
        self.assertIs(inspect.signature(RowProcessor).parameters["rowclass"].default, ViewRow)
        self.assertEqual(ViewRow._fields, ("key", "value", "docid", "doc"))
        self.check(params.make_options_string, "input, unrecognized_ok=False, passthrough=False")
        self.check(params.make_dvpath, "doc, view")

    def test_admin(self):
        """The administrator's session and its requests."""
        self.check(Admin, "username, password, host='localhost', port=8091, **ignored")
        self.check(
            Admin.http_request,
            "path, method='GET', content=None, content_type='application/json', response_format=0",
        )

    def test_items(self):
        """Items and their collections."""
        self.check(Item.__init__, "key=None, value=None")
        self.check(Item.as_itcoll, "**options")
        self.check(ItemSequence, "obj")
        self.check(ItemOptionDict, "d=None")
        self.check(ItemOptionDict.add, "item, **options")
        for cls in (ItemSequence, ItemOptionDict):
            self.assertTrue(issubclass(cls, ItemCollection))

    def test_errors(self):
        """Makers of exceptions."""
        self.check(CouchbaseError.pyexc, "message=None, obj=None, inner=None")
        self.check(CouchbaseError.rc_to_exctype, "rc")
        self.check(CouchbaseError._can_derive, "rc")

    def test_converters_and_transcoders(self):
        """The functions of the package, and the methods of both transcoders."""
        self.check(couchbase.set_json_converters, "encode, decode")
        self.check(couchbase.set_pickle_converters, "encode, decode")
        for cls in (Transcoder, TranscoderPP):
            self.check_all(
                cls,
                {
                    "encode_key": "key",
                    "decode_key": "key",
                    "encode_value": "value, format",
                    "decode_value": "value, flags",
                },
            )
        self.check(Transcoder.determine_format, "value")

    def test_asynchronous(self):
        """The base of asynchronous connections and views."""
        self.check(Async, "iops=None, **kwargs")
        self.check(AsyncResult.set_callbacks, "ok, err")
        self.check_all(
            AsyncViewBase,
            {"start": "", "on_rows": "rowiter", "on_error": "ex", "on_done": "", "raise_include_docs": ""},
        )


class NamesTests(TestCase):
    """The importable names of each module."""

    def test_reexported(self):
        """``couchbase.connection`` also has the results and constants."""
        connection = importlib.import_module("couchbase.connection")
        for name in [
            "Result",
            "OperationResult",
            "ValueResult",
            "HttpResult",
            "MultiResult",
            "ObserveInfo",
            "AsyncResult",
        ]:
            self.assertIs(getattr(connection, name), getattr(result, name))
        for name in dir(user_constants):
            if name.isupper() and not name.startswith("_"):
                self.assertIs(getattr(connection, name), getattr(user_constants, name))
                self.assertIs(getattr(couchbase, name), getattr(user_constants, name))

    def test_params(self):
        """Names and words of ``couchbase.views.params``."""
        for name, value in {
            "STALE_UPDATE_BEFORE": "false",
            "STALE_UPDATE_AFTER": "update_after",
            "STALE_OK": "ok",
            "ONERROR_CONTINUE": "continue",
            "ONERROR_STOP": "stop",
        }.items():
            self.assertEqual(getattr(params, name), value)
        for name in ("Query", "Params", "UNSPEC", "make_options_string", "make_dvpath"):
            self.assertTrue(hasattr(params, name))
        self.assertEqual(importlib.import_module("couchbase.views.iterator").MAX_URI_LENGTH, 2048)
        self.assertEqual(Query.STRING_RANGE_END, "\u0fff")

    def test_asynchronous(self):
        """``couchbase.async`` under its new name, with its submodules."""
        package = importlib.import_module("couchbase.asynchronous")
        self.assertIs(package.Async, importlib.import_module("couchbase.asynchronous.connection").Async)
        self.assertTrue(issubclass(package.Async, Connection))
        self.assertTrue(issubclass(AsyncViewBase, View))


class FormatTests(TestCase):
    """Formats, converters and transcoders, without a node."""

    def test_first_bit(self):
        """UTF-8, then bytes, then pickle; no bit is JSON; only the bits of the mask are stored."""
        coder = Transcoder()
        for value, format, stored, flags in (
            ("t", 0x07, b"t", 0x07),
            (b"t", 0x03, b"t", 0x03),
            ([1, "\u00e9"], 0x08, '[1,"\u00e9"]'.encode(), 0x00),
            ("t", 0xF4, b"t", 0x04),
        ):
            self.assertEqual(coder.encode_value(value, format), (stored, flags))
            self.assertEqual(coder.decode_value(stored, flags), value)
        self.assertEqual(coder.decode_value(b"[1]", 0x08), [1])

    def test_transcoder(self):
        """FMT_AUTO is not for ``encode_value``; ``determine_format`` says what it stands for."""
        coder = Transcoder()
        self.assertRaises(TypeError, coder.encode_value, "t", FMT_AUTO)
        for value, format in (
            ("t", FMT_UTF8),
            (b"t", FMT_BYTES),
            (bytearray(b"t"), FMT_BYTES),
            ([], FMT_JSON),
            ((), FMT_JSON),
            ({}, FMT_JSON),
            (True, FMT_JSON),
            (None, FMT_JSON),
            (1, FMT_PICKLE),
            (1.5, FMT_PICKLE),
            ({1}, FMT_PICKLE),
        ):
            self.assertEqual(coder.determine_format(value), format)
        self.assertEqual((coder.encode_key("\u00e9"), coder.decode_key(b"\xc3\xa9")), (b"\xc3\xa9", "\u00e9"))

    def test_converters(self):
        """JSON may come as bytes; a pickle has to; each function gets one argument."""
        coder = Transcoder()
        before = couchbase.set_json_converters(lambda value: b"5", lambda text: (text,))
        try:
            self.assertEqual(coder.encode_value({}, FMT_JSON), (b"5", FMT_JSON))
            self.assertEqual(coder.decode_value(b"x", 0), ("x",))
        finally:
            mine = couchbase.set_json_converters(*before)
        self.assertEqual(mine[0]({}), b"5")
        before = couchbase.set_pickle_converters(lambda value: "text", lambda data: (data,))
        try:
            self.assertRaises(ValueFormatError, coder.encode_value, 1, FMT_PICKLE)
            self.assertEqual(coder.decode_value(b"x", FMT_PICKLE), (b"x",))
        finally:
            mine = couchbase.set_pickle_converters(*before)
        self.assertEqual(mine[0](1), "text")


class WireTests(TestCase):
    """Numbers of the protocol."""

    def test_opcodes(self):
        """The opcodes are those of servers."""
        for name, opcode in {
            "GET": 0x00,
            "GAT": 0x1D,
            "TOUCH": 0x1C,
            "GET_LOCKED": 0x94,
            "UNLOCK": 0x95,
            "GET_REPLICA": 0x83,
            "SET": 0x01,
            "ADD": 0x02,
            "REPLACE": 0x03,
            "APPEND": 0x0E,
            "PREPEND": 0x0F,
            "DELETE": 0x04,
            "INCREMENT": 0x05,
            "DECREMENT": 0x06,
            "STAT": 0x10,
            "OBSERVE": 0x92,
            "SASL_LIST_MECHS": 0x20,
            "SASL_AUTH": 0x21,
            "SASL_STEP": 0x22,
            "GET_CLUSTER_CONFIG": 0xB5,
        }.items():
            self.assertEqual(Opcode[name], opcode)
        self.assertEqual(COUNTER_NO_CREATE, 0xFFFFFFFF)

    def test_map(self):
        """A row of the map: the active node, then the replicas; -1 for none."""
        nodes = [NodeAddress(f"n{index}", 1) for index in range(3)]
        found = ClusterMap(nodes=nodes, rows=[(2, 0), (1, -1)] * 512, replicas=1, rev=1)
        vbucket = found.vbucket(b"hello")
        self.assertEqual((vbucket, found.active(vbucket)), (528, 2))
