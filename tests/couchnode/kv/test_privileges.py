"""Privileges of the key-value protocol: what each command needs, by the reference's table; what is hidden;
and how changes reach open connections."""

from __future__ import annotations

import json
from struct import pack
from typing import Any

from couchbase.protocol.constants import Feature, FrameInfo, Opcode, Status
from couchbase.protocol.frames import Frame, encode_frame_infos
from couchnode.access.rights import (
    ADMINISTRATOR,
    DELETE,
    EVERYTHING,
    INSERT,
    META_WRITE,
    NAMES,
    RANGE_SCAN,
    READ,
    SIMPLE_STATS,
    STATS,
    SYSTEM_XATTR_READ,
    SYSTEM_XATTR_WRITE,
    UPSERT,
    BucketRights,
)
from couchnode.access.roles import Role, parse_roles
from couchnode.data.manifest import Manifest
from couchnode.kv.commands.table import COMMANDS, Presence, Scope
from couchnode.kv.privileges import NEEDS, Limits
from couchnode.kv.session import MAX_FRAMINGS
from tests.couchnode.kv.test_commands import CommandCase
from tests.couchnode.nodes import USER

READS = (
    "GET GETQ GETK GETKQ GET_REPLICA GETEX GETEX_REPLICA GET_META GET_METAQ GET_KEYS GET_LOCKED UNLOCK"
    " SUBDOC_GET SUBDOC_EXISTS SUBDOC_GET_COUNT SUBDOC_MULTI_LOOKUP GET_FAILOVER_LOG OBSERVE_SEQNO"
    " GET_RANDOM_KEY"
)
WRITES = (
    "SET SETQ REPLACE REPLACEQ APPEND APPENDQ PREPEND PREPENDQ TOUCH SUBDOC_DICT_ADD SUBDOC_DICT_UPSERT"
    " SUBDOC_DELETE SUBDOC_REPLACE SUBDOC_ARRAY_PUSH_LAST SUBDOC_ARRAY_PUSH_FIRST SUBDOC_ARRAY_INSERT"
    " SUBDOC_ARRAY_ADD_UNIQUE SUBDOC_MULTI_MUTATION SUBDOC_REPLACE_BODY_WITH_XATTR"
)
BOTH = "INCREMENT INCREMENTQ DECREMENT DECREMENTQ GAT GATQ SUBDOC_COUNTER"

# Opcode -> sets of privileges, each of which is enough.
NEEDED: dict[str, list[int]] = {
    **dict.fromkeys(READS.split(), [READ]),
    **dict.fromkeys(WRITES.split(), [UPSERT]),
    **dict.fromkeys(BOTH.split(), [READ | UPSERT]),
    **dict.fromkeys(["ADD", "ADDQ"], [INSERT, UPSERT]),
    **dict.fromkeys(["DELETE", "DELETEQ"], [DELETE]),
    **dict.fromkeys(
        (f"{name}_WITH_META" for name in ("SET", "SETQ", "ADD", "ADDQ", "DEL", "DELQ")), [META_WRITE]
    ),
    **dict.fromkeys(["RANGE_SCAN_CREATE", "RANGE_SCAN_CONTINUE", "RANGE_SCAN_CANCEL"], [RANGE_SCAN]),
    **dict.fromkeys(["SEQNO_PERSISTENCE", "VERBOSITY"], [ADMINISTRATOR]),
    "STAT": [SIMPLE_STATS, STATS],
}
FREE = (
    "HELLO SASL_LIST_MECHS SASL_AUTH SASL_STEP GET_ERROR_MAP SELECT_BUCKET LIST_BUCKETS GET_CLUSTER_CONFIG"
    " NOOP VERSION QUIT QUITQ FLUSH FLUSHQ GET_MANIFEST"
)
ANYTHING = ("OBSERVE", "GET_COLLECTION_ID", "GET_SCOPE_ID")
"""Any privilege will do, on the collection or scope that they name."""
SCAN = json.dumps({"range": {"start": "YQ==", "end": "eg=="}, "key_only": True}).encode()
COLLECTIONS = (Feature.XERROR, Feature.JSON, Feature.COLLECTIONS, Feature.XATTR)
SUBDOCUMENT = {
    Opcode.SUBDOC_MULTI_LOOKUP: (b"", b"\xc6\0\0\1a"),
    Opcode.SUBDOC_MULTI_MUTATION: (b"", b"\xc8\0\0\1a\0\0\0\1a1"),
}


def acting_for(user: str, *more: tuple[int, bytes]) -> bytes:
    """Return framing extras that name a user."""
    return encode_frame_infos([(FrameInfo.IMPERSONATE, user.encode()), *more])


class PrivilegeCase(CommandCase):
    """Sessions with limited rights in ``default``."""

    features = (Feature.XERROR, Feature.JSON, Feature.XATTR)

    def limit(self, mask: int) -> None:
        """Give the session these privileges on the bucket."""
        self.assertIs(self.session.bucket, self.bucket)
        self.session.limits = Limits(BucketRights(mask, {}), mask)

    def give(self, *texts: str, user: str = USER) -> None:
        """Log in with these roles."""
        self.assign(*texts, user=user)
        self.session.authenticated(user)
        self.session.select(self.bucket)

    def assign(self, *texts: str, user: str = USER) -> None:
        """Change the roles of a user; the session is notified, as by the server."""
        exists = {"default": {"_default": ["_default"], "s": ["a", "b"], "t": ["c"]}}
        self.node.cluster.roles[user] = parse_roles(",".join(texts), exists)
        self.session.rights_changed()

    def request(self, opcode: Opcode) -> dict[str, Any]:
        """Return parts that make a well-formed request."""
        row = COMMANDS[opcode]
        assert row is not None
        extras = bytes(max(row.extras or (3,)))
        value = b"" if row.value is not Presence.REQUIRED else b"12345678"
        if opcode.name.startswith("SUBDOC"):
            extras, value = SUBDOCUMENT.get(opcode, (b"\0\1\0", b"a1"))
        if opcode == Opcode.RANGE_SCAN_CREATE:
            return {"value": SCAN, "datatype": 1}
        if opcode == Opcode.GET_RANDOM_KEY:
            extras = b""
        parts: dict[str, Any] = {"extras": extras, "value": value, "cas": 1 if opcode == Opcode.UNLOCK else 0}
        if row.key is Presence.REQUIRED:
            parts["key"] = b"k"
        return parts

    def refusal(self, opcode: Opcode, **parts: Any) -> tuple[int, str]:
        """Return status and text of a refusal."""
        answer = self.ask(opcode, **parts)
        return answer.specific, json.loads(answer.value)["error"]["context"]


class CommandTests(PrivilegeCase):
    """The table."""

    def test_every_command_is_in_the_table(self) -> None:
        """No command is without a row here, and none is both free and not."""
        known = {Opcode(opcode).name for opcode, row in enumerate(COMMANDS) if row is not None}
        self.assertEqual(known, {*NEEDED, *FREE.split(), *ANYTHING})
        self.assertFalse(NEEDED.keys() & set(FREE.split()))

    def test_without(self) -> None:
        """With every privilege but the needed ones a command is EACCESS, and its text names the one."""
        for name, enough in NEEDED.items():
            opcode = Opcode[name]
            for wanted in enough[-1:]:
                for privilege in NAMES:
                    if not wanted & privilege:
                        continue
                    self.limit(EVERYTHING & ~sum(enough) & ~privilege | (wanted & ~privilege))
                    status, text = self.refusal(opcode, **self.request(opcode))
                    self.assertEqual(Status(status), Status.EACCESS, name)
                    row = COMMANDS[opcode]
                    assert row is not None
                    self.assertIn(f"operation without the {NAMES[privilege]} privilege", text, name)

    def test_with(self) -> None:
        """With the needed privileges alone a command is done, or refused for another reason."""
        for name, enough in NEEDED.items():
            opcode = Opcode[name]
            for wanted in enough:
                self.limit(wanted)
                for answer in self.all(opcode, **self.request(opcode)):
                    self.assertNotEqual(answer.specific, Status.EACCESS, name)

    def test_free(self) -> None:
        """Commands about the connection need nothing but credentials."""
        for name in FREE.split():
            row = COMMANDS[Opcode[name]]
            assert row is not None
            if (
                row.scope is Scope.HANDSHAKE
                or name.startswith("QUIT")
                or name in ("OBSERVE", "SELECT_BUCKET")
            ):
                continue
            self.limit(0)
            for answer in self.all(Opcode[name], **self.request(Opcode[name])):
                self.assertNotEqual(answer.specific, Status.EACCESS, name)

    def test_quiet_twins(self) -> None:
        """A quiet command needs what its twin needs."""
        for opcode, row in enumerate(COMMANDS):
            if row is not None and Opcode(opcode) not in NEEDS:
                twin = next(
                    other
                    for other in COMMANDS
                    if other is not None and other.handler is row.handler and other.quiet is None
                )
                self.assertIs(row.needs, twin.needs)


class AttributeTests(PrivilegeCase):
    """System attributes."""

    def lookup(self, *paths: bytes) -> Frame:
        """Look attributes up."""
        value = b"".join(pack(">BBH", 0xC5, 4, len(path)) + path for path in paths)
        return self.ask(Opcode.SUBDOC_MULTI_LOOKUP, key=b"k", value=value)

    def mutate(self, path: bytes) -> Frame:
        """Write an attribute."""
        value = pack(">BBHI", 0xC8, 4, len(path), 1) + path + b"1"
        return self.ask(Opcode.SUBDOC_MULTI_MUTATION, key=b"k", value=value, extras=b"\1")

    def test_reading(self) -> None:
        """Reading one needs its own privilege; user attributes and virtual ones do not."""
        self.mutate(b"_sys")
        self.mutate(b"user")
        for mask, statuses in [
            (READ, [0, 0, Status.EACCESS]),
            (READ | SYSTEM_XATTR_READ, [0, 0, 0]),
        ]:
            self.limit(mask)
            for path, status in zip((b"user", b"$document", b"_sys"), statuses, strict=True):
                answer = self.lookup(path)
                self.assertEqual(int.from_bytes(answer.value[:2], "big"), status, (mask, path))
            contents = self.lookup(b"$XTOC").value
            self.assertEqual(b"_sys" in contents, bool(mask & SYSTEM_XATTR_READ))

    def test_whole_documents(self) -> None:
        """Whoever reads a document with its attributes gets those of the system with the privilege alone."""
        features = (*self.features, Feature.SNAPPY_EVERYWHERE, Feature.COLLECTIONS)
        more = Feature.GET_RANDOM_KEY_INCLUDE_XATTR
        self.mutate(b"_sys")
        self.mutate(b"user")
        self.ask(Opcode.HELLO, value=b"".join(pack(">H", one) for one in (*features, more)))
        for mask, shown in [(READ | RANGE_SCAN, False), (READ | RANGE_SCAN | SYSTEM_XATTR_READ, True)]:
            self.limit(mask)
            scan = json.dumps({**json.loads(SCAN), "key_only": False, "include_xattrs": True}).encode()
            made = self.ask(Opcode.RANGE_SCAN_CREATE, value=scan, datatype=1)
            for answer in (
                self.ask(Opcode.GETEX, key=b"\0k"),
                self.ask(Opcode.GET_RANDOM_KEY, extras=b"\0\0\0\0\1"),
                self.ask(Opcode.RANGE_SCAN_CONTINUE, extras=made.value + bytes(12)),
            ):
                self.assertIn(b"user\0", answer.value, answer)
                self.assertIs(b"_sys\0" in answer.value, shown, answer)

    def test_writing(self) -> None:
        """Writing one needs its own privilege, and then nothing of the command is done."""
        self.limit(READ | UPSERT)
        self.assertEqual(self.mutate(b"user").specific, 0)
        answer = self.mutate(b"_sys")
        self.assertIn(Status.EACCESS, (answer.specific, int.from_bytes(answer.value[1:3], "big")))
        self.limit(READ | UPSERT | SYSTEM_XATTR_WRITE)
        self.assertEqual(self.mutate(b"_sys").specific, 0)


class CollectionTests(PrivilegeCase):
    """Scopes and collections: 8 is s.a, 9 is s.b, 10 is t.c."""

    features = COLLECTIONS

    def setUp(self) -> None:
        super().setUp()
        manifest = Manifest()
        for scope, names in (("s", "ab"), ("t", "c")):
            manifest = manifest.with_scope(scope)
            for name in names:
                manifest = manifest.with_collection(scope, name)
        self.bucket.set_manifest(manifest)

    def statuses(self, opcode: Opcode, **parts: Any) -> dict[int, str]:
        """Return the status of a command in each collection."""
        return {
            number: Status(self.ask(opcode, key=bytes([number]) + b"k", **parts).specific).name
            for number in (0, 8, 9, 10, 11)
        }

    def test_levels(self) -> None:
        """A role for a collection, a scope or the bucket opens that part. A collection without any privilege
        looks as if it did not exist; where there is another one, EACCESS."""
        hidden, missing = "UNKNOWN_COLLECTION", "KEY_ENOENT"
        for roles, reads, writes in [
            (
                ["data_reader[default:s:a]"],
                [hidden, missing, hidden, hidden, hidden],
                [hidden, "EACCESS", hidden, hidden, hidden],
            ),
            (
                ["data_reader[default:s]"],
                [hidden, missing, missing, hidden, hidden],
                [hidden, "EACCESS", "EACCESS", hidden, hidden],
            ),
            (
                ["data_reader[default]"],
                [missing, missing, missing, missing, hidden],
                ["EACCESS"] * 4 + [hidden],
            ),
            (
                ["data_reader[default:s:a]", "data_writer[default:s]"],
                [hidden, missing, "EACCESS", hidden, hidden],
                [hidden, "SUCCESS", "SUCCESS", hidden, hidden],
            ),
            (
                ["data_writer[default:t]", "data_monitoring[default]"],
                ["EACCESS"] * 4 + [hidden],
                ["EACCESS"] * 3 + ["SUCCESS", hidden],
            ),
            (["views_reader[default]"], [missing] * 4 + [hidden], ["EACCESS"] * 4 + [hidden]),
            (["ro_admin"], ["EACCESS"] * 4 + [hidden], ["EACCESS"] * 4 + [hidden]),
        ]:
            self.give(*roles)
            self.assertEqual(list(self.statuses(Opcode.GET).values()), reads, roles)
            self.assertEqual(list(self.statuses(Opcode.SET, extras=bytes(8)).values()), writes, roles)
            self.session.authenticated("root")
            self.node.cluster.roles["root"] = (Role("admin"),)
            self.session.select(self.bucket)
            self.statuses(Opcode.DELETE)

    def test_hidden_is_like_missing(self) -> None:
        """Nothing in the answer tells a hidden collection from one that is not there."""
        self.give("data_reader[default:s:a]")
        for opcode, parts in [
            (Opcode.GET, {"key": b"%ck"}),
            (Opcode.SET, {"key": b"%ck", "extras": bytes(8)}),
            (Opcode.DELETE, {"key": b"%ck"}),
            (Opcode.SUBDOC_MULTI_LOOKUP, {"key": b"%ck", "value": b"\xc6\0\0\1a"}),
            (Opcode.GET_RANDOM_KEY, {"extras": b"\0\0\0%c"}),
            (Opcode.OBSERVE, {"value": b"\0\0\0\2%ck"}),
            (Opcode.RANGE_SCAN_CREATE, {"value": b'{"collection":"%x",' + SCAN[1:], "datatype": 1}),
        ]:
            seen = []
            for number in (9, 77):
                filled = {
                    name: part % number if isinstance(part, bytes) and b"%" in part else part
                    for name, part in parts.items()
                }
                answer = self.ask(opcode, **filled)
                document = json.loads(answer.value)
                context = document["error"]["context"].replace(f"0x{number:x}", "ID")
                seen.append((answer.specific, context, document["manifest_uid"]))
            self.assertEqual(seen[0], seen[1], opcode)
            self.assertEqual(seen[0][0], Status.UNKNOWN_COLLECTION)

    def test_no_privilege_in_the_bucket(self) -> None:
        """Without any privilege in the bucket every collection is EACCESS, missing ones too."""
        self.give()
        for number in (0, 8, 77):
            for opcode, parts in [
                (Opcode.GET, {"key": b"%ck" % number}),
                (Opcode.SET, {"key": b"%ck" % number, "extras": bytes(8)}),
                (Opcode.SUBDOC_MULTI_LOOKUP, {"key": b"%ck" % number, "value": b"\xc6\0\0\1a"}),
                (Opcode.GET_RANDOM_KEY, {"extras": b"\0\0\0%c" % number}),
                (Opcode.OBSERVE, {"value": b"\0\0\0\2%ck" % number}),
                (Opcode.GET_COLLECTION_ID, {"value": b"s.a"}),
                (Opcode.GET_COLLECTION_ID, {"value": b"s.nope"}),
                (Opcode.GET_SCOPE_ID, {"value": b"s"}),
                (Opcode.RANGE_SCAN_CREATE, {"value": SCAN, "datatype": 1}),
            ]:
                self.assertStatus(Status.EACCESS, opcode, **parts)
        self.assertEqual(json.loads(self.ask(Opcode.GET_MANIFEST).value)["scopes"], [])

    def test_manifest_and_ids(self) -> None:
        """The manifest shows what the user may know of, and names resolve for that alone."""
        self.give("data_reader[default:s:a]", "data_writer[default:t]")
        manifest = json.loads(self.ask(Opcode.GET_MANIFEST).value)
        shown = {scope["name"]: [one["name"] for one in scope["collections"]] for scope in manifest["scopes"]}
        self.assertEqual(shown, {"s": ["a"], "t": ["c"]})
        for path, status in {
            "s.a": Status.SUCCESS,
            "s.b": Status.UNKNOWN_COLLECTION,
            "s.nope": Status.UNKNOWN_COLLECTION,
            "t.c": Status.SUCCESS,
            "t.nope": Status.UNKNOWN_COLLECTION,
            "_default._default": Status.UNKNOWN_SCOPE,
            "nope.x": Status.UNKNOWN_SCOPE,
        }.items():
            self.assertStatus(status, Opcode.GET_COLLECTION_ID, value=path.encode())
        for path, status in {"s": 0, "t": 0, "_default": 0x8C, "nope": 0x8C}.items():
            self.assertEqual(self.ask(Opcode.GET_SCOPE_ID, value=path.encode()).specific, status, path)

    def test_commands_for_the_whole_bucket(self) -> None:
        """A right on one collection is none on the bucket, but OBSERVE_SEQNO and scans take any."""
        self.give("data_reader[default:s:a]")
        self.assertStatus(Status.EACCESS, Opcode.GET_FAILOVER_LOG)
        self.assertStatus(Status.EACCESS, Opcode.STAT)
        vbucket = self.bucket.vbuckets[0]
        assert vbucket is not None
        self.assertStatus(Status.SUCCESS, Opcode.OBSERVE_SEQNO, value=pack(">Q", vbucket.uuid))
        self.give("data_writer[default:s:a]")
        self.assertStatus(Status.EACCESS, Opcode.OBSERVE_SEQNO, value=pack(">Q", vbucket.uuid))

    def test_connection_without_collections(self) -> None:
        """A connection that did not ask for collections gets EACCESS where there is no privilege."""
        self.give("data_reader[default:s:a]")
        self.ask(Opcode.HELLO, value=pack(">HH", Feature.XERROR, Feature.JSON))
        self.assertStatus(Status.EACCESS, Opcode.GET, key=b"k")

    def test_fast_path_is_for_rights_on_all(self) -> None:
        """What the fast path may answer is what the user may do in every collection."""
        seen = {Opcode.OBSERVE}
        reads = {Opcode.GET, Opcode.SUBDOC_MULTI_LOOKUP, Opcode.GET_LOCKED, Opcode.UNLOCK, *seen}
        reads.add(Opcode.OBSERVE_SEQNO)
        upserts = {Opcode.SET, Opcode.REPLACE, Opcode.ADD, Opcode.SUBDOC_MULTI_MUTATION, Opcode.TOUCH, *seen}
        upserts |= {Opcode.APPEND, Opcode.PREPEND}
        stores = {*upserts, Opcode.DELETE}
        both = {*reads, *stores, Opcode.GAT, Opcode.INCREMENT, Opcode.DECREMENT}
        for roles, expected in {
            "data_reader[default]": reads,
            "data_writer[*]": stores,
            "query_insert[default]": {Opcode.ADD, *seen},
            "query_update[default]": upserts,
            "bucket_full_access[default]": both,
            "admin": both,
            "data_reader[default:s]": set(),
            "ro_admin": seen,
        }.items():
            self.give(roles)
            self.assertEqual(self.session.quick, expected, roles)


class ChangeTests(PrivilegeCase):
    """Changes of rights on open connections."""

    features = (Feature.XERROR, Feature.JSON)

    def test_roles_change(self) -> None:
        """The next command has the new rights; the bucket stays selected; nobody is disconnected."""
        self.give("data_reader[default]")
        self.assertStatus(Status.KEY_ENOENT, Opcode.GET, key=b"k")
        self.assertStatus(Status.EACCESS, Opcode.SET, key=b"k", extras=bytes(8))
        self.assign("data_reader[default]", "data_writer[default]")
        self.assertStatus(Status.SUCCESS, Opcode.SET, key=b"k", extras=bytes(8))
        self.assign()
        for opcode, extras in ((Opcode.GET, b""), (Opcode.SET, bytes(8))):
            self.assertStatus(Status.EACCESS, opcode, key=b"k", extras=extras)
        self.assertStatus(Status.SUCCESS, Opcode.NOOP)
        self.assertIs(self.session.bucket, self.bucket)
        self.assertStatus(Status.EACCESS, Opcode.SELECT_BUCKET, key=b"default")
        self.assign("data_reader[default]")
        self.assertStatus(Status.SUCCESS, Opcode.GET, key=b"k")

    def test_no_right_on_the_bucket(self) -> None:
        """A bucket without any right is not selected, nor listed; one with any is."""
        self.session.authenticated(USER)
        self.assertStatus(Status.EACCESS, Opcode.SELECT_BUCKET, key=b"default")
        self.assertEqual(self.ask(Opcode.LIST_BUCKETS).value, b"")
        for role in ("data_monitoring[default]", "data_reader[default:s:a]", "ro_admin"):
            self.assign(role)
            self.assertStatus(Status.SUCCESS, Opcode.SELECT_BUCKET, key=b"default")
            self.assertEqual(self.ask(Opcode.LIST_BUCKETS).value, b"default")
        self.assign("fts_searcher[default]")
        self.assertStatus(Status.EACCESS, Opcode.SELECT_BUCKET, key=b"default")


class ImpersonationTests(PrivilegeCase):
    """Requests that an administrator's connection makes for another user."""

    features = COLLECTIONS

    def setUp(self) -> None:
        super().setUp()
        self.bucket.set_manifest(Manifest().with_scope("s").with_collection("s", "a"))
        self.known = {"jane", "mia", "a name of many characters"}
        self.patch(type(self.node.cluster.users), "__contains__", lambda _, name: name in self.known)
        self.assign("data_reader[default]", user="jane")
        self.assign("admin", user="mia")
        self.assign("data_writer[default:s:a]", user="a name of many characters")
        self.give("admin")

    def get(
        self, *framing: tuple[int, bytes], user: str = "jane", key: bytes = b"\0k", **parts: Any
    ) -> Frame:
        """Read a document for a user."""
        return self.ask(Opcode.GET, key=key, framing=acting_for(user, *framing), **parts)

    def test_rights_are_those_of_the_user(self) -> None:
        """Each request has the rights of its own user; those without a name are the connection's."""
        self.set(b"\0k")
        for _ in range(2):
            self.assertEqual(self.get().value, b"v")
            status, text = self.refusal(Opcode.SET, key=b"\0k", extras=bytes(8), framing=acting_for("jane"))
            self.assertEqual(status, Status.EACCESS)
            self.assertIn("SET operation without the Upsert privilege", text)
            other = "a name of many characters"
            self.assertEqual(self.get(user=other).specific, Status.UNKNOWN_COLLECTION)
            self.assertEqual(self.get(user=other, key=b"\x08k").specific, Status.EACCESS)
            written = self.ask(Opcode.SET, key=b"\x08k", extras=bytes(8), framing=acting_for(other))
            self.assertEqual(written.specific, Status.SUCCESS)
            self.assertEqual(self.set(b"\0k").specific, 0)
            self.assertEqual(self.ask(Opcode.SET, key=b"\0k", extras=bytes(8), value=b"v",
                                      framing=acting_for("mia")).specific, 0)  # fmt: skip

    def test_refusals(self) -> None:
        """A name that is empty, unknown or of another domain; a connection that may not act for others."""
        for user, status in [
            ("", Status.EINVAL),
            ("nobody", Status.EACCESS),
            ("^jane", Status.NOT_SUPPORTED),
        ]:
            self.assertEqual(self.get(user=user).specific, status, user)
        status, text = self.refusal(Opcode.GET, key=b"\0k", framing=acting_for("nobody"))
        self.assertEqual(text, 'User "nobody" is not a Couchbase user')
        self.give("bucket_full_access[default]", "cluster_admin")
        status, text = self.refusal(Opcode.GET, key=b"\0k", framing=acting_for("jane"))
        self.assertEqual(status, Status.EACCESS)
        self.assertEqual(
            text, "Authorization failure: can't execute GET operation without the Impersonate privilege"
        )

    def test_with_other_frame_infos(self) -> None:
        """A user's name goes with durability and a kept expiry."""
        extras = pack(">II", 0, 100)
        self.ask(Opcode.SET, key=b"\0k", extras=extras, value=b"v")
        vbucket = self.bucket.vbuckets[0]
        assert vbucket is not None
        expiry = vbucket.items[b"\0k"].expiry
        self.assertTrue(expiry)
        keep = (FrameInfo.PRESERVE_TTL, b"")
        for user, status in (("mia", 0), ("jane", Status.EACCESS)):
            answer = self.ask(
                Opcode.SET, key=b"\0k", extras=bytes(8), value=b"w", framing=acting_for(user, keep)
            )
            self.assertEqual(answer.specific, status, user)
        self.assertEqual(vbucket.items[b"\0k"].expiry, expiry)
        self.assertEqual(self.get(keep, user="mia").specific, Status.NOT_SUPPORTED)
        self.assertEqual(self.get((FrameInfo.BARRIER, b"")).value, b"w")

    def test_extra_privilege(self) -> None:
        """A privilege that the user lacks can be named for one request, if the connection has it."""
        lookup = {"key": b"\0k", "value": pack(">BBH", 0xC5, 4, 4) + b"_sys"}
        self.set(b"\0k")
        extra = (6, b"SystemXattrRead")
        for framing, status in [
            (acting_for("jane"), Status.EACCESS),
            (acting_for("jane", extra), Status.SUBDOC_PATH_ENOENT),
        ]:
            answer = self.ask(Opcode.SUBDOC_MULTI_LOOKUP, framing=framing, **lookup)
            self.assertEqual(int.from_bytes(answer.value[:2], "big"), status)
        answer = self.ask(Opcode.SUBDOC_MULTI_LOOKUP, framing=acting_for("jane", (6, b"Nonsense")), **lookup)
        self.assertEqual(answer.specific, Status.EINVAL)
        self.assertTrue(META_WRITE)

    def test_change_of_rights(self) -> None:
        """A user's new rights hold for the next request, on the fast path too; a deleted user is refused."""
        self.set(b"\0k")
        self.assertEqual(self.get().specific, 0)
        self.assertIn(acting_for("jane"), self.session.framings)
        self.assign(user="jane")
        self.assertEqual(self.session.framings.keys(), {b"\x50"})
        self.assertEqual(self.get().specific, Status.EACCESS)
        self.known.discard("jane")
        self.session.rights_changed()
        self.assertEqual(self.get().specific, Status.EACCESS)

    def test_memory(self) -> None:
        """A connection remembers a limited number of users."""
        self.known.update(f"user {number}" for number in range(MAX_FRAMINGS + 10))
        for number in range(MAX_FRAMINGS + 10):
            self.get(user=f"user {number}")
            self.assertLessEqual(len(self.session.framings), MAX_FRAMINGS)
