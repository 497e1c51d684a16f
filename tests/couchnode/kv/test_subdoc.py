"""Parts of documents: paths, splices, and the commands over them."""

from __future__ import annotations

import json
from struct import pack, unpack
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from couchbase.protocol.constants import LOCKED_CAS, Datatype, Feature, Opcode, Status
from couchnode.data.item import StatusError
from couchnode.kv.commands.table import dispatch
from couchnode.kv.jsonpath import Component, find, members, parse_path, value_at
from couchnode.kv.subdoc import PathFlag, lookup, mutate, nesting
from couchnode.kv.vattr import crc32c
from tests.couchnode.kv.test_commands import CommandCase

UPSERT, ADD = Opcode.SUBDOC_DICT_UPSERT, Opcode.SUBDOC_DICT_ADD
PUSH_LAST, PUSH_FIRST = Opcode.SUBDOC_ARRAY_PUSH_LAST, Opcode.SUBDOC_ARRAY_PUSH_FIRST
CREATE = PathFlag.CREATE_PARENTS

_KEYS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=4)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)
_LAYOUTS = st.sampled_from([{}, {"indent": 2}, {"separators": (" , ", " : ")}, {"ensure_ascii": False}])


def every_path(value: Any, layout: dict[str, Any]) -> list[tuple[bytes, Any]]:
    """Return each path into a value with what is there."""
    paths: list[tuple[bytes, Any]] = []
    if isinstance(value, dict):
        for key, inner in value.items():
            name = json.dumps(key, ensure_ascii=layout.get("ensure_ascii", True))[1:-1]
            step = f"`{name.replace('`', '``')}`".encode()
            paths.append((step, inner))
            paths += [
                (step + (b"" if rest[:1] == b"[" else b".") + rest, v)
                for rest, v in every_path(inner, layout)
            ]
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            step = b"[%d]" % index
            paths.append((step, inner))
            paths += [
                (step + (b"" if rest[:1] == b"[" else b".") + rest, v)
                for rest, v in every_path(inner, layout)
            ]
    return paths


class Paths(SynchronousTestCase):
    """The path syntax."""

    def test_steps(self) -> None:
        """Dots, brackets and back quotes."""
        expected: dict[bytes, list[Component]] = {
            b"": [],
            b"a": [b"a"],
            b"a.b[3].c": [b"a", b"b", 3, b"c"],
            b"[-1]": [-1],
            b"[0][1].x": [0, 1, b"x"],
            b"`a.b[0]`.c": [b"a.b[0]", b"c"],
            b"`a``b`": [b"a`b"],
            b"``": [b""],
            "größe".encode(): ["größe".encode()],
            rb"a\"b": [rb"a\"b"],
        }
        for path, steps in expected.items():
            self.assertEqual(parse_path(path), steps, path)

    def test_malformed(self) -> None:
        """What is no path, and what is too long or too deep."""
        malformed = rb'. a. .a a..b [ [x] [-2] [01] a[0]b a] `a `a`b a"b a\ a.[0]'
        for path in [*malformed.split(), b"a\nb"]:
            refusal = self.assertRaises(StatusError, parse_path, path)
            self.assertEqual(refusal.status, Status.SUBDOC_PATH_EINVAL, path)
        for path in (b"a" * 1025, b".".join([b"a"] * 33)):
            self.assertEqual(
                self.assertRaises(StatusError, parse_path, path).status, Status.SUBDOC_PATH_E2BIG
            )

    @settings(max_examples=300, deadline=None)
    @given(_JSON, _LAYOUTS)
    def test_every_path_leads_to_its_value(self, value: Any, layout: dict[str, Any]) -> None:
        """In any document of any layout each path finds exactly what decoding finds there."""
        text = json.dumps(value, **layout).encode()
        for path, inner in every_path(value, layout):
            span = find(text, parse_path(path))
            self.assertEqual(json.loads(text[span.start : span.end]), inner, (text, path))
        if isinstance(value, (dict, list)):
            self.assertEqual(len(list(members(text, value_at(text, 0)))), len(value))

    @settings(max_examples=300, deadline=None)
    @given(st.binary(max_size=30))
    def test_any_bytes_as_a_path(self, path: bytes) -> None:
        """Whatever is given as a path is a list of steps or refused."""
        try:
            parse_path(path)
        except StatusError as refusal:
            self.assertEqual(refusal.status, Status.SUBDOC_PATH_EINVAL)

    @settings(max_examples=300, deadline=None)
    @given(_JSON, _LAYOUTS, _JSON, st.data())
    def test_changes_change_nothing_else(
        self, value: Any, layout: dict[str, Any], new: Any, data: Any
    ) -> None:
        """Replacing or deleting at any path does to the text what it does to the decoded value."""
        text = json.dumps(value, **layout).encode()
        paths = every_path(value, layout)
        if not paths or nesting(text) > 20:
            return
        path, old = data.draw(st.sampled_from(paths))
        replaced = mutate(Opcode.SUBDOC_REPLACE, text, path, json.dumps(new).encode()).text
        self.assertEqual(json.loads(lookup(Opcode.SUBDOC_GET, replaced, path)), new)
        back = mutate(Opcode.SUBDOC_REPLACE, replaced, path, json.dumps(old).encode()).text
        self.assertEqual(json.loads(back), value)
        deleted = json.loads(mutate(Opcode.SUBDOC_DELETE, text, path, b"").text)
        steps = parse_path(path)
        last = steps[-1]
        expected = json.loads(text)
        holder = expected
        for step in steps[:-1]:
            holder = holder[step if isinstance(step, int) else json.loads(b'"' + step + b'"')]
        del holder[last if isinstance(last, int) else json.loads(b'"' + last + b'"')]
        self.assertEqual(deleted, expected)


class Operations(SynchronousTestCase):
    """Each operation on a text."""

    def ok(self, opcode: int, text: bytes, path: bytes, value: bytes, flags: int = 0) -> bytes:
        """Return the changed text."""
        return mutate(opcode, text, path, value, flags).text

    def no(self, status: Status, opcode: int, text: bytes, path: bytes, value: bytes, flags: int = 0) -> None:
        """Assert a refusal."""
        refusal = self.assertRaises(StatusError, mutate, opcode, text, path, value, flags)
        self.assertEqual(refusal.status, status, (opcode, text, path, value))

    def test_dictionary(self) -> None:
        """Add and upsert; parents only if asked for; never into arrays or scalars."""
        self.assertEqual(self.ok(UPSERT, b'{ "a" : 1 }', b"a", b"[2]"), b'{ "a" : [2] }')
        self.assertEqual(self.ok(UPSERT, b'{"a":1}', b"b", b"2"), b'{"a":1,"b":2}')
        self.assertEqual(self.ok(ADD, b"{}", b"b", b'"x"'), b'{"b":"x"}')
        self.assertEqual(self.ok(UPSERT, b"{}", b"a.b.c", b"1", CREATE), b'{"a":{"b":{"c":1}}}')
        self.no(Status.SUBDOC_PATH_EEXISTS, ADD, b'{"a":1}', b"a", b"2")
        self.no(Status.SUBDOC_PATH_ENOENT, UPSERT, b"{}", b"a.b", b"1")
        self.no(Status.SUBDOC_PATH_ENOENT, UPSERT, b"{}", b"a[0].b", b"1", CREATE)
        self.no(Status.SUBDOC_PATH_MISMATCH, UPSERT, b'{"a":1}', b"a.b", b"1")
        self.no(Status.SUBDOC_PATH_MISMATCH, UPSERT, b"[1]", b"a", b"1")
        self.no(Status.SUBDOC_PATH_EINVAL, UPSERT, b"[1]", b"[0]", b"1")
        self.no(Status.SUBDOC_PATH_EINVAL, UPSERT, b"{}", b"", b"1")
        for fragment in (b"{", b"x", b"1,2", b"1}", b" "):
            self.no(Status.SUBDOC_VALUE_CANTINSERT, UPSERT, b"{}", b"a", fragment)
        self.no(Status.EINVAL, UPSERT, b"{}", b"a", b"")

    def test_replace_and_delete(self) -> None:
        """They need the path; deletion takes the right comma along."""
        self.assertEqual(self.ok(Opcode.SUBDOC_REPLACE, b"[1, 2]", b"[-1]", b"3"), b"[1, 3]")
        self.no(Status.SUBDOC_PATH_ENOENT, Opcode.SUBDOC_REPLACE, b"{}", b"a", b"3")
        for text, path, left in (
            (b"[1,2,3]", b"[0]", b"[2,3]"), (b"[1,2,3]", b"[1]", b"[1,3]"), (b"[1,2,3]", b"[-1]", b"[1,2]"),
            (b"[1]", b"[0]", b"[]"), (b'{"a": 1, "b": 2}', b"b", b'{"a": 1}'),
            (b'{"a": 1, "b": 2}', b"a", b'{"b": 2}'),
        ):  # fmt: skip
            self.assertEqual(self.ok(Opcode.SUBDOC_DELETE, text, path, b""), left)
        self.no(Status.SUBDOC_PATH_ENOENT, Opcode.SUBDOC_DELETE, b"[1]", b"[1]", b"")

    def test_arrays(self) -> None:
        """Push at both ends, insert in between, add what is not there yet."""
        self.assertEqual(self.ok(PUSH_LAST, b'{"a":[1]}', b"a", b"2,3"), b'{"a":[1,2,3]}')
        self.assertEqual(self.ok(PUSH_LAST, b"[ ]", b"", b"1"), b"[1 ]")
        self.assertEqual(self.ok(PUSH_FIRST, b"[2]", b"", b'0, {"x":1}'), b'[0, {"x":1},2]')
        self.assertEqual(self.ok(PUSH_LAST, b"{}", b"a", b"1", CREATE), b'{"a":[1]}')
        self.no(Status.SUBDOC_PATH_ENOENT, PUSH_LAST, b"{}", b"a", b"1")
        self.no(Status.SUBDOC_PATH_MISMATCH, PUSH_LAST, b'{"a":{}}', b"a", b"1")
        self.no(Status.SUBDOC_VALUE_CANTINSERT, PUSH_LAST, b"[]", b"", b"1],[2")
        insert = Opcode.SUBDOC_ARRAY_INSERT
        self.assertEqual(self.ok(insert, b"[1,3]", b"[1]", b"2"), b"[1,2,3]")
        self.assertEqual(self.ok(insert, b"[1,2]", b"[2]", b"3"), b"[1,2,3]")
        self.assertEqual(self.ok(insert, b"[]", b"[0]", b"1"), b"[1]")
        self.no(Status.SUBDOC_PATH_ENOENT, insert, b"[1]", b"[2]", b"2")
        self.no(Status.SUBDOC_PATH_EINVAL, insert, b"[1]", b"[-1]", b"2")
        self.no(Status.SUBDOC_PATH_EINVAL, insert, b'{"a":1}', b"a", b"2")
        unique = Opcode.SUBDOC_ARRAY_ADD_UNIQUE
        self.assertEqual(self.ok(unique, b'[1,"a"]', b"", b'"b"'), b'[1,"a","b"]')
        self.no(Status.SUBDOC_PATH_EEXISTS, unique, b'[1,"a"]', b"", b'"a"')
        self.no(Status.SUBDOC_VALUE_CANTINSERT, unique, b"[]", b"", b"{}")
        self.no(Status.SUBDOC_PATH_MISMATCH, unique, b"[[]]", b"", b"1")

    def test_counter(self) -> None:
        """Signed 64-bit, created with the delta, never wrapping."""
        counter = Opcode.SUBDOC_COUNTER
        self.assertEqual(mutate(counter, b'{"n":1}', b"n", b"-5"), (b'{"n":-4}', b"-4"))
        self.assertEqual(mutate(counter, b"{}", b"n", b"5"), (b'{"n":5}', b"5"))
        self.assertEqual(mutate(counter, b"{}", b"a.n", b"5", CREATE), (b'{"a":{"n":5}}', b"5"))
        for delta in (b"0", b"x", b"1.5", b"9223372036854775808", b"99999999999999999999"):
            self.no(Status.SUBDOC_DELTA_EINVAL, counter, b"{}", b"n", delta)
        for value in (b"1.5", b'"5"', b"null", b"[]", b"1e3"):
            self.no(Status.SUBDOC_PATH_MISMATCH, counter, b'{"n":' + value + b"}", b"n", b"1")
        self.no(Status.SUBDOC_NUM_ERANGE, counter, b'{"n":9223372036854775808}', b"n", b"1")
        self.no(Status.SUBDOC_VALUE_CANTINSERT, counter, b'{"n":9223372036854775807}', b"n", b"1")

    def test_depth(self) -> None:
        """A value that nests a document deeper than 32 levels is refused."""
        deep = b"[" * 31 + b"]" * 31
        self.ok(UPSERT, b"{}", b"a", deep)
        self.no(Status.SUBDOC_VALUE_ETOODEEP, UPSERT, b"{}", b"a", b"[" + deep + b"]")
        self.no(Status.SUBDOC_DOC_E2DEEP, PUSH_LAST, b"[" * 33 + b"]" * 33, b"", b"1")


def spec(opcode: int, path: bytes, flags: int = 0) -> bytes:
    """Return one lookup of a multi command."""
    return pack(">BBH", opcode, flags, len(path)) + path


def change(opcode: int, path: bytes, value: bytes, flags: int = 0) -> bytes:
    """Return one mutation of a multi command."""
    return pack(">BBHI", opcode, flags, len(path), len(value)) + path + value


XATTR = int(PathFlag.XATTR)


class Lookups(CommandCase):
    """Single and multi lookups."""

    def multi(self, *specs: bytes, extras: bytes = b"") -> tuple[Status, list[tuple[Status, bytes]]]:
        """Return the header's status and each path's."""
        answer = self.ask(Opcode.SUBDOC_MULTI_LOOKUP, key=b"k", value=b"".join(specs), extras=extras)
        results, data = [], answer.value
        while data:
            status, size = unpack(">HI", data[:6])
            results.append((Status(status), data[6 : 6 + size]))
            data = data[6 + size :]
        return Status(answer.specific), results

    def test_single(self) -> None:
        """Value, existence, count; the bytes are those of the document."""
        self.set(value=b'{ "a" : [1, 2.50, {"x": "y"}] }')
        for opcode, path, status, value in (
            (Opcode.SUBDOC_GET, b"a[1]", Status.SUCCESS, b"2.50"),
            (Opcode.SUBDOC_EXISTS, b"a[2].x", Status.SUCCESS, b""),
            (Opcode.SUBDOC_EXISTS, b"b", Status.SUBDOC_PATH_ENOENT, b""),
            (Opcode.SUBDOC_GET_COUNT, b"a", Status.SUCCESS, b"3"),
            (Opcode.SUBDOC_GET_COUNT, b"", Status.SUCCESS, b"1"),
            (Opcode.SUBDOC_GET_COUNT, b"a[0]", Status.SUBDOC_PATH_MISMATCH, b""),
            (Opcode.SUBDOC_GET, b"a.b", Status.SUBDOC_PATH_MISMATCH, b""),
            (Opcode.SUBDOC_GET, b"", Status.SUBDOC_PATH_EINVAL, b""),
        ):
            answer = self.assertStatus(status, opcode, key=b"k", extras=pack(">HB", len(path), 0), value=path)
            self.assertEqual(answer.value, value)
        self.assertStatus(Status.KEY_ENOENT, Opcode.SUBDOC_GET, key=b"x", extras=b"\0\1\0", value=b"a")
        self.assertStatus(Status.EINVAL, Opcode.SUBDOC_GET, key=b"k", extras=b"\0\2\0", value=b"a")
        self.set(value=b"no json")
        self.assertStatus(
            Status.SUBDOC_DOC_NOT_JSON, Opcode.SUBDOC_GET, key=b"k", extras=b"\0\1\0", value=b"a"
        )

    def test_multi(self) -> None:
        """Each path has its own status; the whole document can be one of them."""
        self.set(value=b'{"a":1}')
        good = self.multi(spec(Opcode.SUBDOC_GET, b"a"), spec(Opcode.GET, b""))
        self.assertEqual(good, (Status.SUCCESS, [(Status.SUCCESS, b"1"), (Status.SUCCESS, b'{"a":1}')]))
        mixed = self.multi(spec(Opcode.SUBDOC_EXISTS, b"b"), spec(Opcode.SUBDOC_GET, b"a"))
        self.assertEqual(
            mixed,
            (Status.SUBDOC_MULTI_PATH_FAILURE, [(Status.SUBDOC_PATH_ENOENT, b""), (Status.SUCCESS, b"1")]),
        )

    def test_document_attributes(self) -> None:
        """Every field of ``$document``, as the official clients read them."""
        stored = self.set(value=b'{"a":1}', extras=pack(">II", 0x02000000, 60))
        vbucket = self.bucket.vbuckets[0]
        assert vbucket is not None
        header, results = self.multi(
            spec(Opcode.SUBDOC_GET, b"$document.flags", XATTR),
            spec(Opcode.SUBDOC_GET, b"$document.exptime", XATTR),
            spec(Opcode.SUBDOC_GET, b"$document", XATTR),
            spec(Opcode.GET, b""),
        )
        self.assertEqual(header, Status.SUCCESS)
        self.assertEqual([value for _, value in results[:2]], [b"33554432", b"1800000060"])
        self.assertEqual(
            json.loads(results[2][1]),
            {
                "CAS": f"0x{stored.cas:016x}",
                "vbucket_uuid": f"0x{vbucket.uuid:016x}",
                "seqno": "0x0000000000000001",
                "revid": "1",
                "exptime": 1_800_000_060,
                "flags": 0x02000000,
                "value_bytes": 7,
                "datatype": ["json"],
                "deleted": False,
                "last_modified": "1800000000",
                "value_crc32c": "0x" + format(crc32c(b'{"a":1}'), "08x"),
            },
        )
        self.assertEqual(results[3][1], b'{"a":1}')

    def test_crc(self) -> None:
        """The check value of CRC-32C."""
        self.assertEqual(crc32c(b"123456789"), 0xE3069283)

    def test_other_attributes(self) -> None:
        """Attributes of clients are not there; unknown virtual ones are unknown; the lock's CAS is hidden."""
        self.set()
        self.ask(Opcode.GET_LOCKED, key=b"k")
        _, results = self.multi(
            spec(Opcode.SUBDOC_GET, b"_sync", XATTR),
            spec(Opcode.SUBDOC_GET, b"$nonsense.x", XATTR),
            spec(Opcode.SUBDOC_EXISTS, b"$document.nonsense", XATTR),
            spec(Opcode.SUBDOC_GET, b"$document.CAS", XATTR),
            spec(Opcode.SUBDOC_GET, b"$XTOC", XATTR),
        )
        self.assertEqual(
            results,
            [
                (Status.SUBDOC_PATH_ENOENT, b""),
                (Status.SUBDOC_XATTR_UNKNOWN_VATTR, b""),
                (Status.SUBDOC_PATH_ENOENT, b""),
                (Status.SUCCESS, f'"0x{LOCKED_CAS:016x}"'.encode()),
                (Status.SUCCESS, b"[]"),
            ],
        )

    def test_bad_commands(self) -> None:
        """Too many paths, mutations among lookups, attributes behind the document, cut off lists."""
        self.set(value=b"{}")
        get = Opcode.SUBDOC_GET
        for specs, status in (
            ([spec(get, b"a")] * 17, Status.SUBDOC_INVALID_COMBO),
            ([spec(UPSERT, b"a")], Status.SUBDOC_INVALID_COMBO),
            ([spec(get, b"a"), spec(get, b"$document", XATTR)], Status.SUBDOC_INVALID_XATTR_ORDER),
            ([spec(get, b"a")[:-1]], Status.EINVAL),
            ([spec(get, b"a")[:2]], Status.EINVAL),
            ([spec(Opcode.GET, b"a")], Status.EINVAL),
        ):
            self.assertStatus(status, Opcode.SUBDOC_MULTI_LOOKUP, key=b"k", value=b"".join(specs))
        self.assertStatus(
            Status.EINVAL, Opcode.SUBDOC_MULTI_LOOKUP, key=b"k", value=spec(get, b"a"), extras=b"\1"
        )

    def test_deleted_documents(self) -> None:
        """With the flag a tombstone's attributes can be read; its body is not there."""
        self.set(value=b"{}")
        self.ask(Opcode.DELETE, key=b"k")
        deleted = spec(Opcode.SUBDOC_GET, b"$document.deleted", XATTR)
        self.assertEqual(
            self.multi(deleted, extras=b"\4"), (Status.SUBDOC_SUCCESS_DELETED, [(Status.SUCCESS, b"true")])
        )
        header, results = self.multi(deleted, spec(Opcode.SUBDOC_GET, b"a"), extras=b"\4")
        self.assertEqual(header, Status.SUBDOC_MULTI_PATH_FAILURE_DELETED)
        self.assertEqual(results[1][0], Status.SUBDOC_PATH_ENOENT)

    def test_replica_reads(self) -> None:
        """With the flag a replica answers, and the active copy does not."""
        self.set(value=b"{}")
        get = spec(Opcode.GET, b"")
        self.assertStatus(
            Status.NOT_MY_VBUCKET, Opcode.SUBDOC_MULTI_LOOKUP, key=b"k", value=get, extras=b"\x20"
        )
        self.bucket.set_topology(["replica"] * 4)
        self.assertEqual(self.multi(get, extras=b"\x20")[1], [(Status.SUCCESS, b"{}")])
        self.assertStatus(Status.NOT_MY_VBUCKET, Opcode.SUBDOC_MULTI_LOOKUP, key=b"k", value=get)


class Mutations(CommandCase):
    """Single and multi mutations."""

    features = (Feature.XERROR, Feature.JSON, Feature.MUTATION_SEQNO)

    def multi(self, *changes: bytes, **parts: Any) -> Any:
        """Return the answer of a multi mutation."""
        return self.ask(Opcode.SUBDOC_MULTI_MUTATION, key=b"k", value=b"".join(changes), **parts)

    def value(self) -> bytes:
        """Return the document."""
        return self.ask(Opcode.GET, key=b"k").value

    def test_single(self) -> None:
        """One change, with a token; the counter returns its number."""
        self.set(value=b'{"n":1}', extras=pack(">II", 7, 60))
        answer = self.ask(Opcode.SUBDOC_COUNTER, key=b"k", extras=b"\0\1\0", value=b"n41")
        self.assertEqual((answer.specific, answer.value, len(answer.extras)), (0, b"42", 16))
        found = self.ask(Opcode.GET, key=b"k")
        self.assertEqual((found.value, found.extras, found.cas), (b'{"n":42}', pack(">I", 7), answer.cas))
        self.assertEqual(unpack(">I", self.ask(Opcode.GET_META, key=b"k").extras[8:12])[0], 1_800_000_060)
        self.ask(UPSERT, key=b"k", extras=pack(">HBI", 1, 0, 90), value=b"m1")
        self.assertEqual(unpack(">I", self.ask(Opcode.GET_META, key=b"k").extras[8:12])[0], 1_800_000_090)
        self.assertStatus(
            Status.SUBDOC_PATH_ENOENT, Opcode.SUBDOC_DELETE, key=b"k", extras=b"\0\1\0", value=b"x"
        )
        self.assertStatus(Status.KEY_ENOENT, UPSERT, key=b"no", extras=b"\0\1\0", value=b"a1")
        self.assertStatus(Status.EINVAL, UPSERT, key=b"k", extras=b"\0\x09\0", value=b"a1")

    def test_multi(self) -> None:
        """All changes in order, and the answers of those that have one."""
        self.set(value=b'{"n":1}')
        answer = self.multi(
            change(UPSERT, b"a", b"[]"),
            change(Opcode.SUBDOC_COUNTER, b"n", b"1"),
            change(PUSH_LAST, b"a", b"5"),
        )
        self.assertEqual((answer.specific, answer.value), (0, b"\1\0\0\0\0\0\1" + b"2"))
        self.assertEqual(self.value(), b'{"n":2,"a":[5]}')

    def test_all_or_nothing(self) -> None:
        """The first change that fails is named, and nothing is applied."""
        stored = self.set(value=b'{"n":1}')
        answer = self.multi(change(UPSERT, b"a", b"1"), change(ADD, b"n", b"1"), change(UPSERT, b"b", b"1"))
        self.assertEqual(
            (answer.specific, answer.value),
            (Status.SUBDOC_MULTI_PATH_FAILURE, pack(">BH", 1, Status.SUBDOC_PATH_EEXISTS)),
        )
        found = self.ask(Opcode.GET, key=b"k")
        self.assertEqual((found.value, found.cas), (b'{"n":1}', stored.cas))

    def test_document_flags(self) -> None:
        """Upsert and insert create; the root fits the first path; both together are refused."""
        upsert = change(UPSERT, b"a", b"1")
        self.assertEqual(self.multi(upsert).specific, Status.KEY_ENOENT)
        self.assertEqual(self.multi(upsert, extras=b"\1").specific, 0)
        self.assertEqual(self.multi(upsert, extras=b"\2").specific, Status.KEY_EEXISTS)
        self.assertEqual(self.multi(upsert, extras=b"\3").specific, Status.EINVAL)
        self.assertEqual(self.multi(upsert, extras=b"\x08").specific, Status.NOT_SUPPORTED)
        self.assertEqual(self.multi(upsert, extras=b"\2", cas=5).specific, Status.EINVAL)
        self.ask(Opcode.DELETE, key=b"k")
        answer = self.multi(change(PUSH_LAST, b"", b"1"), extras=pack(">IIB", 60, 9, 2))
        self.assertEqual(answer.specific, 0)
        found = self.ask(Opcode.GET, key=b"k")
        self.assertEqual((found.value, found.extras), (b"[1]", pack(">I", 9)))

    def test_whole_document(self) -> None:
        """Set and delete of the whole, alone in their command."""
        self.assertEqual(self.multi(change(Opcode.SET, b"", b"{}"), extras=b"\2").specific, 0)
        self.assertEqual(self.value(), b"{}")
        two = (change(Opcode.SET, b"", b"{}"), change(UPSERT, b"a", b"1"))
        self.assertEqual(self.multi(*two).specific, Status.SUBDOC_INVALID_COMBO)
        self.assertEqual(self.multi(change(Opcode.DELETE, b"", b"")).specific, 0)
        self.assertEqual(self.ask(Opcode.GET, key=b"k").specific, Status.KEY_ENOENT)

    def test_cas_and_locks(self) -> None:
        """Another CAS and a lock stand in the way; the lock's CAS does not."""
        stored = self.set(value=b"{}")
        upsert = change(UPSERT, b"a", b"1")
        self.assertEqual(self.multi(upsert, cas=stored.cas + 1).specific, Status.KEY_EEXISTS)
        locked = self.ask(Opcode.GET_LOCKED, key=b"k")
        self.assertEqual(self.multi(upsert).specific, Status.LOCKED)
        self.assertEqual(self.multi(upsert, cas=locked.cas).specific, 0)
        self.assertEqual(self.multi(upsert).specific, 0)

    def test_attributes_cannot_be_written(self) -> None:
        """Virtual ones are read only; others do not exist here yet."""
        self.set(value=b"{}")
        virtual = change(UPSERT, b"$document.flags", b"1", XATTR)
        self.assertEqual(self.multi(virtual).specific, Status.SUBDOC_XATTR_CANT_MODIFY_VATTR)
        self.assertEqual(self.multi(change(UPSERT, b"_a", b"1", XATTR)).specific, Status.NOT_SUPPORTED)

    def test_not_json(self) -> None:
        """A document that is no JSON has no paths."""
        self.set(value=b"text")
        answer = self.multi(change(UPSERT, b"a", b"1"))
        self.assertEqual(answer.value, pack(">BH", 0, Status.SUBDOC_DOC_NOT_JSON))

    def test_durable(self) -> None:
        """A durable change waits for the disk like any other write."""
        self.set(value=b"{}")
        answer = dispatch(
            self.session,
            self.frame(UPSERT, key=b"k", extras=b"\0\1\0", value=b"a1", framing=b"\x11\2"),
        )
        assert isinstance(answer, Deferred)
        self.clock.advance(1)
        self.assertEqual(self.value(), b"{}")
        self.disk.finish()
        self.assertEqual(self.decode(answer)[0].specific, 0)
        self.assertEqual(self.ask(Opcode.GET, key=b"k").datatype, Datatype.JSON)
        self.assertEqual(self.value(), b'{"a":1}')
