"""Commands over a connection in memory: forms, statuses, features, credentials."""

from __future__ import annotations

import json
from collections.abc import Generator
from struct import pack, unpack
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from couchbase.protocol.constants import (
    LOCKED_CAS,
    MAX_KEY_BYTES,
    SUCCESS_STATUSES,
    Datatype,
    Feature,
    Magic,
    ObserveState,
    Opcode,
    Status,
)
from couchbase.protocol.frames import Frame, FrameReader, encode_frame_infos
from couchnode.access.roles import Role
from couchnode.data import measurement
from couchnode.data.manifest import Collection, Manifest
from couchnode.data.storage import MemoryStore
from couchnode.kv import snappy
from couchnode.kv.aside import InTurn
from couchnode.kv.commands import handshake
from couchnode.kv.commands.table import COMMANDS, CasRule, Presence, dispatch
from couchnode.kv.errormap import KNOWN_STATUSES
from couchnode.kv.session import Session
from tests.couchnode.data.test_replication import one_turn
from tests.couchnode.kv.test_server import InMemoryCase
from tests.couchnode.nodes import PASSWORD, USER, ServedNode

Steps = Generator[Deferred[Any], Any, None]
NEVER_CREATE = pack(">QQI", 1, 0, 0xFFFFFFFF)


class CommandCase(InMemoryCase):
    """Tests with one session on the open bucket ``default``, whose disk writes on command."""

    features: tuple[Feature, ...] = (Feature.XERROR, Feature.JSON, Feature.MUTATION_SEQNO)

    def setUp(self) -> None:
        """Begin a session."""
        super().setUp()
        self.session = Session(self.node, "test")
        self.ask(Opcode.HELLO, value=b"".join(pack(">H", feature) for feature in self.features))

    def frame(self, opcode: int, **parts: Any) -> Frame:
        """Return a request."""
        framing = parts.get("framing", b"")
        return Frame(
            Magic.ALT_REQUEST if framing else Magic.REQUEST, opcode, parts.get("vbucket", 0),
            parts.get("datatype", 0), 77, parts.get("cas", 0), framing, parts.get("extras", b""),
            parts.get("key", b""), parts.get("value", b""),
        )  # fmt: skip

    def ask(self, opcode: int, **parts: Any) -> Frame:
        """Return the first answer."""
        return self.all(opcode, **parts)[0]

    def all(self, opcode: int, **parts: Any) -> list[Frame]:
        """Return all answers."""
        return self.decode(dispatch(self.session, self.frame(opcode, **parts)))

    def decode(self, answer: Any) -> list[Frame]:
        """Return the frames of an answer that has already arrived."""
        if isinstance(answer, Deferred):
            answer = self.successResultOf(answer)
        return FrameReader().feed(answer or b"")

    def set(self, key: bytes = b"k", value: bytes = b"v", **parts: Any) -> Frame:
        """Store a document."""
        return self.ask(Opcode.SET, key=key, value=value, **{"extras": bytes(8), **parts})

    def assertStatus(self, status: Status, opcode: int, **parts: Any) -> Frame:
        """Assert what an answer's status is, and that a refusal has the body of one."""
        answer = self.ask(opcode, **parts)
        self.assertEqual(Status(answer.specific), status, answer)
        if status not in SUCCESS_STATUSES and status != Status.NOT_MY_VBUCKET:
            self.assertEqual((answer.extras, answer.key), (b"", b""))
            if answer.value:
                error = json.loads(answer.value)["error"]
                self.assertTrue(error["context"] and error["ref"])
                self.assertEqual(answer.datatype, Datatype.JSON)
        return answer


class Forms(CommandCase):
    """Every request is checked against its declared form."""

    def test_each_row_of_the_table(self) -> None:
        """For every opcode, extras of a wrong length, a key or value too many or too few, and a CAS
        that is not allowed are EINVAL."""
        self.add("default", MemoryStore())
        # Not those that authenticate, after which this session would be a stranger.
        rows = [(Opcode(op), row) for op, row in enumerate(COMMANDS)
                if row is not None and op not in (Opcode.SASL_AUTH, Opcode.SASL_STEP)]  # fmt: skip
        self.assertGreater(len(rows), 50)
        for opcode, row in rows:
            right: dict[str, Any] = {
                "extras": bytes(max(row.extras or (0,))),
                "key": b"" if row.key is Presence.FORBIDDEN else b"key",
                "value": b"" if row.value is Presence.FORBIDDEN else b"v",
                "cas": 1 if row.cas is CasRule.NON_ZERO else 0,
            }
            wrong: list[dict[str, Any]] = [{"extras": bytes(max(row.extras or (13,)) + 1)}]
            if row.key is Presence.FORBIDDEN:
                wrong.append({"key": b"key"})
            if row.key is Presence.REQUIRED:
                wrong.append({"key": b""})
            if row.value is Presence.FORBIDDEN:
                wrong.append({"value": b"v"})
            if row.value is Presence.REQUIRED:
                wrong.append({"value": b""})
            if row.cas is not CasRule.ANY:
                wrong.append({"cas": 0 if row.cas is CasRule.NON_ZERO else 5})
            wrong.append({"datatype": int(Datatype.XATTR)})
            for change in wrong:
                answer = self.ask(opcode, **{**right, **change})
                self.assertEqual(answer.specific, Status.EINVAL, (opcode, change))

    def test_every_status_sent_is_in_the_error_map(self) -> None:
        """The error map knows each status that the table or a vbucket can answer with."""
        reply = json.loads(self.ask(Opcode.GET_ERROR_MAP, value=b"\0\2").value)
        self.assertEqual(reply["version"], 2)
        self.assertEqual(reply["errors"]["9"]["name"], "LOCKED")
        self.assertIn("item-locked", reply["errors"]["9"]["attrs"])
        self.assertEqual({int(code, 16) for code in reply["errors"]}, set(KNOWN_STATUSES))
        self.assertEqual(json.loads(self.ask(Opcode.GET_ERROR_MAP, value=b"\0\1").value)["version"], 1)
        self.assertStatus(Status.EINVAL, Opcode.GET_ERROR_MAP, value=b"\0\0")
        self.assertStatus(Status.EINVAL, Opcode.GET_ERROR_MAP, value=b"\0\2\0")

    def test_unknown_and_retired(self) -> None:
        """An opcode that does not exist is UNKNOWN_COMMAND; FLUSH is NOT_SUPPORTED."""
        self.assertStatus(Status.UNKNOWN_COMMAND, 0x55)
        self.assertStatus(Status.NOT_SUPPORTED, Opcode.FLUSH)

    def test_keys(self) -> None:
        """250 bytes are a key, 251 are not."""
        self.assertEqual(self.set(b"k" * MAX_KEY_BYTES).specific, 0)
        self.assertStatus(Status.EINVAL, Opcode.GET, key=b"k" * (MAX_KEY_BYTES + 1))

    def test_vbuckets(self) -> None:
        """A vbucket that is not here, or a replica, is answered with the configuration."""
        self.bucket.set_topology(["active", "dead", "replica", "active"])
        for vbid in (1, 2, 4, 65535):
            answer = self.assertStatus(Status.NOT_MY_VBUCKET, Opcode.GET, key=b"k", vbucket=vbid)
            self.assertEqual(json.loads(answer.value)["config"], "default")
        self.assertStatus(Status.NOT_MY_VBUCKET, Opcode.GET_REPLICA, key=b"k", vbucket=0)
        self.assertStatus(Status.KEY_ENOENT, Opcode.GET_REPLICA, key=b"k", vbucket=2)

    def test_warmup(self) -> None:
        """Before warm-up is done documents are temporarily unavailable; statistics are not."""
        self.bucket.state = "warmup"
        self.assertStatus(Status.ETMPFAIL, Opcode.GET, key=b"k")
        self.assertStatus(Status.ETMPFAIL, Opcode.SET, key=b"k", extras=bytes(8))
        stats = {answer.key: answer.value for answer in self.all(Opcode.STAT, key=b"warmup")}
        self.assertEqual(stats[b"ep_warmup_state"], b"loading data")
        self.bucket.state = "ready"


class FrameInfos(CommandCase):
    """Framing extras of requests."""

    def framed(self, *infos: tuple[int, bytes], opcode: int = Opcode.SET) -> Status:
        """Return the status of a SET with these."""
        extras = bytes(8) if opcode in (Opcode.SET, Opcode.ADD) else b""
        return Status(self.ask(opcode, key=b"k", extras=extras, framing=encode_frame_infos(infos)).specific)

    def test_forms(self) -> None:
        """Each info has its form, and its commands."""
        invalid = Status.DURABILITY_INVALID_LEVEL
        for infos, status in (
            ([(0, b"")], Status.SUCCESS),
            ([(5, b""), (1, b"\1\x23\x28")], Status.SUCCESS),
            ([(1, b"\1")], Status.SUCCESS),
            ([(1, b"\0")], invalid),
            ([(1, b"\4")], invalid),
            ([(1, b"\1\0\0")], invalid),
            ([(1, b"\1\xff\xff")], invalid),
            ([(1, b"")], Status.EINVAL),
            ([(1, b"\1\1")], Status.EINVAL),
            ([(5, b"x")], Status.EINVAL),
            ([(0, b"x")], Status.EINVAL),
            ([(2, b"xx")], Status.EINVAL),
            ([(3, b"")], Status.UNKNOWN_FRAME_INFO),
            ([(200, b"")], Status.UNKNOWN_FRAME_INFO),
            ([(4, b"")], Status.EINVAL),
            ([(4, b"somebody")], Status.EACCESS),
        ):
            self.assertEqual(self.framed(*infos), status, infos)
        self.assertEqual(self.framed((5, b""), opcode=Opcode.ADD), Status.NOT_SUPPORTED)
        self.assertEqual(self.framed((1, b"\1"), opcode=Opcode.GET), Status.EINVAL)
        answer = self.ask(Opcode.SET, key=b"k", extras=bytes(8), framing=b"\x13\1")
        self.assertEqual(answer.specific, Status.EINVAL)

    def test_preserved_expiry(self) -> None:
        """With the info a store keeps the existing expiry."""
        self.set(extras=pack(">II", 0, 50))
        self.set(extras=pack(">II", 0, 99), framing=b"\x50")
        self.assertEqual(unpack(">I", self.ask(Opcode.GET_META, key=b"k").extras[8:12])[0], 1_800_000_050)

    def test_durable_write_waits_for_the_disk(self) -> None:
        """Level 3 on one node is answered after the commit; a second writer is refused meanwhile."""
        answer = dispatch(
            self.session, self.frame(Opcode.SET, key=b"k", value=b"v", extras=bytes(8), framing=b"\x11\3")
        )
        self.assertStatus(Status.SYNC_WRITE_IN_PROGRESS, Opcode.DELETE, key=b"k")
        self.clock.advance(0)
        assert isinstance(answer, Deferred)
        self.assertNoResult(answer)
        self.disk.finish()
        (stored,) = self.decode(answer)
        self.assertEqual((stored.specific, len(stored.extras)), (0, 16))
        self.assertEqual(self.ask(Opcode.GET, key=b"k").cas, stored.cas)

    def test_least_durability_of_the_bucket(self) -> None:
        """Every kind of write with a lower level waits like a write at the bucket's level; a higher one is
        kept. A quiet write stays silent when it is done."""
        self.set()
        self.bucket.min_level = 2
        extras = {
            Opcode.SET: bytes(8),
            Opcode.ADD: bytes(8),
            Opcode.INCREMENT: bytes(20),
            Opcode.SETQ: bytes(8),
        }
        for opcode, key, framing in (
            (Opcode.SET, b"a", b""),
            (Opcode.ADD, b"b", b"\x11\1"),
            (Opcode.SET, b"c", b"\x11\3"),
            (Opcode.INCREMENT, b"d", b""),
            (Opcode.DELETE, b"k", b""),
            (Opcode.SETQ, b"e", b""),
        ):
            answer = dispatch(
                self.session, self.frame(opcode, key=key, extras=extras.get(opcode, b""), framing=framing)
            )
            assert isinstance(answer, Deferred)
            self.assertNoResult(answer)
            self.clock.advance(0)
            self.disk.finish()
            answers = self.decode(answer)
            self.assertEqual([one.specific for one in answers], [] if opcode == Opcode.SETQ else [0])

    def test_durable_write_times_out(self) -> None:
        """A write that is not on the disk in time is ambiguous."""
        answer = dispatch(self.session, self.frame(Opcode.DELETE, key=b"k", framing=b"\x13\3\x03\xe8"))
        self.assertEqual(self.decode(answer)[0].specific, Status.KEY_ENOENT)
        answer = dispatch(
            self.session, self.frame(Opcode.ADD, key=b"k", extras=bytes(8), framing=b"\x13\3\x03\xe8")
        )
        self.clock.advance(1)
        self.assertEqual(self.decode(answer)[0].specific, Status.SYNC_WRITE_AMBIGUOUS)


class Documents(CommandCase):
    """Answers about documents."""

    def test_tokens(self) -> None:
        """Mutations carry vbucket uuid and sequence number; touch, lock and unlock do not."""
        vbucket = self.bucket.vbuckets[0]
        assert vbucket is not None
        for number, answer in enumerate(
            [
                self.set(value=b"1"),
                self.ask(Opcode.REPLACE, key=b"k", value=b"1", extras=bytes(8)),
                self.ask(Opcode.APPEND, key=b"k", value=b"1"),
                self.ask(Opcode.PREPEND, key=b"k", value=b"1"),
                self.ask(Opcode.INCREMENT, key=b"k", extras=pack(">QQI", 1, 0, 0)),
                self.ask(Opcode.DECREMENT, key=b"k", extras=pack(">QQI", 1, 0, 0)),
                self.ask(Opcode.DELETE, key=b"k"),
            ],
            start=1,
        ):
            self.assertEqual((answer.specific, answer.extras), (0, pack(">QQ", vbucket.uuid, number)))
            self.assertNotEqual(answer.cas, 0)
        self.set()
        self.assertEqual(self.ask(Opcode.TOUCH, key=b"k", extras=pack(">I", 5)).extras, b"")
        locked = self.ask(Opcode.GET_LOCKED, key=b"k")
        self.assertEqual(locked.extras, bytes(4))
        self.assertEqual(self.ask(Opcode.UNLOCK, key=b"k", cas=locked.cas).extras, b"")

    def test_counter_answers_in_binary(self) -> None:
        """The number comes as eight bytes, the document holds text, and it is JSON."""
        answer = self.ask(Opcode.INCREMENT, key=b"n", extras=pack(">QQI", 1, 41, 0))
        self.assertEqual((answer.value, answer.datatype), (pack(">Q", 41), 0))
        self.assertEqual(
            self.ask(Opcode.INCREMENT, key=b"n", extras=pack(">QQI", 1, 0, 0)).value, pack(">Q", 42)
        )
        found = self.ask(Opcode.GET, key=b"n")
        self.assertEqual((found.value, found.datatype), (b"42", Datatype.JSON))
        self.assertStatus(Status.KEY_ENOENT, Opcode.DECREMENT, key=b"x", extras=NEVER_CREATE)
        self.set(b"x", b"text")
        self.assertStatus(Status.DELTA_BADVAL, Opcode.DECREMENT, key=b"x", extras=NEVER_CREATE)

    def test_datatype_is_that_of_the_value(self) -> None:
        """The client's datatype is ignored; without the feature the bit is not shown."""
        self.set(b"j", b'{"a":1}')
        self.set(b"r", b"{broken", datatype=Datatype.JSON)
        self.assertEqual(self.ask(Opcode.GET, key=b"j").datatype, Datatype.JSON)
        self.assertEqual(self.ask(Opcode.GET, key=b"r").datatype, 0)
        self.assertStatus(Status.EINVAL, Opcode.SET, key=b"s", extras=bytes(8), datatype=Datatype.SNAPPY)
        self.ask(Opcode.HELLO)
        self.assertEqual(self.ask(Opcode.GET, key=b"j").datatype, 0)

    def test_locks(self) -> None:
        """The lock's CAS opens it; what readers are shown opens nothing."""
        self.set()
        locked = self.ask(Opcode.GET_LOCKED, key=b"k", extras=pack(">I", 30))
        self.assertEqual(locked.value, b"v")
        self.assertEqual(self.ask(Opcode.GET, key=b"k").cas, LOCKED_CAS)
        self.assertStatus(Status.LOCKED, Opcode.GET_LOCKED, key=b"k")
        self.assertStatus(Status.LOCKED, Opcode.UNLOCK, key=b"k", cas=LOCKED_CAS)
        self.assertStatus(Status.LOCKED, Opcode.UNLOCK, key=b"k", cas=locked.cas + 1)
        self.assertStatus(Status.LOCKED, Opcode.GAT, key=b"k", extras=pack(">I", 5))
        self.assertStatus(Status.KEY_EEXISTS, Opcode.ADD, key=b"k", extras=bytes(8))
        self.assertEqual(self.ask(Opcode.GET_META, key=b"k").cas, LOCKED_CAS)
        self.assertStatus(Status.SUCCESS, Opcode.UNLOCK, key=b"k", cas=locked.cas)
        self.assertStatus(Status.NOT_LOCKED, Opcode.UNLOCK, key=b"k", cas=locked.cas)

    def test_get_and_touch(self) -> None:
        """The document comes with its new CAS; the same expiry again changes nothing."""
        stored = self.set(extras=pack(">II", 9, 0))
        touched = self.ask(Opcode.GAT, key=b"k", extras=pack(">I", 60))
        self.assertEqual((touched.extras, touched.value), (pack(">I", 9), b"v"))
        self.assertGreater(touched.cas, stored.cas)
        self.assertEqual(self.ask(Opcode.TOUCH, key=b"k", extras=pack(">I", 60)).cas, touched.cas)

    def test_meta(self) -> None:
        """Both versions; a tombstone is found and says that it is one."""
        self.set(value=b"5", extras=pack(">II", 9, 60))
        expiry = 1_800_000_060
        self.assertEqual(self.ask(Opcode.GET_META, key=b"k").extras, pack(">IIIQ", 0, 9, expiry, 1))
        second = self.ask(Opcode.GET_META, key=b"k", extras=b"\2")
        self.assertEqual(second.extras, pack(">IIIQB", 0, 9, expiry, 1, Datatype.JSON))
        self.assertStatus(Status.EINVAL, Opcode.GET_META, key=b"k", extras=b"\3")
        self.ask(Opcode.DELETE, key=b"k")
        self.assertEqual(self.ask(Opcode.GET_META, key=b"k", extras=b"\2").extras[:4], pack(">I", 1))
        self.assertStatus(Status.KEY_ENOENT, Opcode.GET_META, key=b"never")

    def test_random_key(self) -> None:
        """Flags are in the extras, against what the prose of the protocol says."""
        self.assertStatus(Status.KEY_ENOENT, Opcode.GET_RANDOM_KEY)
        self.set(extras=pack(">II", 9, 0))
        answer = self.ask(Opcode.GET_RANDOM_KEY)
        self.assertEqual((answer.key, answer.value, answer.extras), (b"k", b"v", pack(">I", 9)))
        self.assertStatus(Status.EINVAL, Opcode.GET_RANDOM_KEY, extras=bytes(4))

    def test_no_memory(self) -> None:
        """Over the quota stores are ENOMEM, and reads still work."""
        self.set()
        self.bucket.ledger.quota_bytes = 1
        self.assertStatus(Status.ENOMEM, Opcode.SET, key=b"big", value=b"x" * 50, extras=bytes(8))
        self.assertStatus(Status.SUCCESS, Opcode.GET, key=b"k")

    def test_stat(self) -> None:
        """One answer a number, all with the opaque, and an empty one at the end."""
        answers = self.all(Opcode.STAT)
        self.assertEqual({answer.opaque for answer in answers}, {77})
        self.assertEqual((answers[-1].key, answers[-1].value), (b"", b""))
        self.assertTrue(all(answer.key for answer in answers[:-1]))
        self.assertStatus(Status.KEY_ENOENT, Opcode.STAT, key=b"nonsense")


class Observing(CommandCase):
    """Observing the state of documents."""

    def observe(self, *keys: bytes, vbid: int = 0) -> list[tuple[int, int]]:
        """Return (state, CAS) of each key."""
        value = b"".join(pack(">HH", vbid, len(key)) + key for key in keys)
        data, states = self.assertStatus(Status.SUCCESS, Opcode.OBSERVE, value=value).value, []
        while data:
            seen, size = unpack(">HH", data[:4])
            self.assertEqual(seen, vbid)
            states.append(unpack(">BQ", data[4 + size : 13 + size]))
            data = data[13 + size :]
        return states

    def write(self) -> None:
        """Let what waits reach the disk."""
        self.clock.advance(1)
        self.disk.finish()

    def test_long_lists(self) -> None:
        """Many keys are observed in several turns of the reactor, and later requests wait for that; a fault
        in the list, or the end of the bucket, is found in its turn."""
        value = pack(">HHB", 0, 1, 0x61) * 5000
        for tail, status in ((b"", Status.SUCCESS), (b"\0", Status.EINVAL), (b"", Status.ETMPFAIL)):
            answer = dispatch(self.session, self.frame(Opcode.OBSERVE, value=value + tail))
            self.assertIsInstance(answer, InTurn)
            one_turn(self.clock)
            self.assertNoResult(answer)
            if status == Status.ETMPFAIL:
                self.bucket.state = "closed"
            one_turn(self.clock)
            frame = self.decode(answer)[0]
            self.assertEqual(frame.specific, status)
            if not status:
                self.assertEqual(frame.value, (value[:5] + pack(">BQ", ObserveState.NOT_FOUND, 0)) * 5000)

    def test_states_follow_the_disk(self) -> None:
        """Found, persisted, found again, deleted, gone: each with the right CAS."""
        missing = (ObserveState.NOT_FOUND, 0)
        self.assertEqual(self.observe(b"k", b"x"), [missing, missing])
        cas = self.set().cas
        self.assertEqual(self.observe(b"k", b"x"), [(ObserveState.FOUND, cas), missing])
        self.write()
        self.assertEqual(self.observe(b"k"), [(ObserveState.PERSISTED, cas)])
        cas = self.set().cas
        self.assertEqual(self.observe(b"k"), [(ObserveState.FOUND, cas)])
        self.write()
        cas = self.ask(Opcode.DELETE, key=b"k").cas
        self.assertEqual(self.observe(b"k"), [(ObserveState.LOGICALLY_DELETED, cas)])
        self.write()
        self.assertEqual(self.observe(b"k"), [(ObserveState.NOT_FOUND, cas)])

    def test_bad_lists(self) -> None:
        """A list that is cut off is EINVAL; one foreign vbucket refuses the whole."""
        for value in (b"\0", b"\0\0\0\5k", b"\0\0\0\0"):
            self.assertStatus(Status.EINVAL, Opcode.OBSERVE, value=value)
        self.assertStatus(Status.NOT_MY_VBUCKET, Opcode.OBSERVE, value=b"\0\0\0\1k\0\x09\0\1k")

    def test_seqno(self) -> None:
        """Persisted and current numbers; an older branch gets the second form; strangers nothing."""
        vbucket = self.bucket.vbuckets[0]
        assert vbucket is not None
        old = vbucket.uuid
        self.set()
        answer = self.assertStatus(Status.SUCCESS, Opcode.OBSERVE_SEQNO, value=pack(">Q", old))
        self.assertEqual(answer.value, pack(">BHQQQ", 0, 0, old, 0, 1))
        self.write()
        self.set()
        answer = self.ask(Opcode.OBSERVE_SEQNO, value=pack(">Q", old))
        self.assertEqual(answer.value, pack(">BHQQQ", 0, 0, old, 1, 2))
        vbucket.branch()
        self.set()
        answer = self.ask(Opcode.OBSERVE_SEQNO, value=pack(">Q", old))
        self.assertEqual(answer.value, pack(">BHQQQQQ", 1, 0, vbucket.uuid, 1, 3, old, 2))
        self.assertStatus(Status.KEY_ENOENT, Opcode.OBSERVE_SEQNO, value=pack(">Q", 1))
        self.assertStatus(Status.EINVAL, Opcode.OBSERVE_SEQNO, value=b"short")
        log = self.ask(Opcode.GET_FAILOVER_LOG).value
        self.assertEqual(log, pack(">QQQQ", vbucket.uuid, 2, old, 0))

    def test_seqno_persistence(self) -> None:
        """It is answered once the number is on the disk, to an administrator."""
        self.set()
        self.assertStatus(Status.EACCESS, Opcode.SEQNO_PERSISTENCE, extras=pack(">Q", 1))
        self.node.cluster.roles[USER] = (Role("admin"),)
        self.session.authenticated(USER)
        self.session.select(self.bucket)
        answer = dispatch(self.session, self.frame(Opcode.SEQNO_PERSISTENCE, extras=pack(">Q", 1)))
        assert isinstance(answer, Deferred)
        self.clock.advance(0)
        self.assertNoResult(answer)
        self.disk.finish()
        self.assertEqual(self.decode(answer)[0].specific, 0)


class WithoutXerror(CommandCase):
    """A client of the first generation."""

    features = ()

    def test_statuses_it_knows(self) -> None:
        """Locked is EEXISTS for a store and TMPFAIL for a lock; not locked is TMPFAIL."""
        self.set()
        locked = self.ask(Opcode.GET_LOCKED, key=b"k")
        for status, opcode, parts in (
            (Status.KEY_EEXISTS, Opcode.SET, {"extras": bytes(8)}),
            (Status.KEY_EEXISTS, Opcode.APPEND, {}),
            (Status.ETMPFAIL, Opcode.GET_LOCKED, {}),
            (Status.ETMPFAIL, Opcode.UNLOCK, {"cas": 5}),
            (Status.ETMPFAIL, Opcode.DELETE, {"cas": 5}),
        ):
            self.assertEqual(self.ask(opcode, key=b"k", **parts).specific, status, opcode)
        self.ask(Opcode.UNLOCK, key=b"k", cas=locked.cas)
        self.assertEqual(self.ask(Opcode.UNLOCK, key=b"k", cas=locked.cas).specific, Status.ETMPFAIL)

    def test_what_has_no_older_word_ends_the_connection(self) -> None:
        """Not permitted, for one."""
        self.assertEqual(self.all(Opcode.SELECT_BUCKET, key=b"other"), [])
        self.assertTrue(self.session.closing)

    def test_no_token_and_no_datatype(self) -> None:
        """Features that were not negotiated are not used."""
        self.assertEqual(self.set(value=b"{}").extras, b"")
        self.assertEqual(self.ask(Opcode.GET, key=b"k").datatype, 0)


class WithAttributes(CommandCase):
    """GETEX: documents with their attributes, as they are stored."""

    features = (Feature.XERROR, Feature.JSON, Feature.XATTR, Feature.SNAPPY_EVERYWHERE)

    def test_values(self) -> None:
        """Attributes come before the body, and the datatype says so."""
        if not snappy.FEATURES:
            raise SkipTest("cramjam is not installed")
        self.set(value=b"[1]", extras=pack(">II", 9, 0))
        found = self.ask(Opcode.GETEX, key=b"k")
        self.assertEqual((found.value, found.datatype, found.extras), (b"[1]", Datatype.JSON, pack(">I", 9)))
        change = {"key": b"k", "value": b"x1", "extras": b"\0\1\4"}
        self.assertStatus(Status.SUCCESS, Opcode.SUBDOC_DICT_UPSERT, **change)
        found = self.ask(Opcode.GETEX, key=b"k")
        pair = b"x\x001\0"
        self.assertEqual(found.value, pack(">II", len(pair) + 4, len(pair)) + pair + b"[1]")
        self.assertEqual(found.datatype, Datatype.JSON | Datatype.XATTR)
        self.assertEqual(found.cas, self.ask(Opcode.GET, key=b"k").cas)
        self.assertEqual(self.ask(Opcode.GET, key=b"k").value, b"[1]")

    def test_random_key(self) -> None:
        """A random document comes with its attributes if they are asked for, and negotiated."""
        if not snappy.FEATURES:
            raise SkipTest("cramjam is not installed")
        codes = b"\0\6\0\7\0\x0b\0\x12\0\x13"
        self.ask(Opcode.HELLO, value=codes + b"\0\x24")
        self.set(b"\0k", b"[1]")
        change = {"key": b"\0k", "value": b"x1", "extras": b"\0\1\4"}
        self.assertStatus(Status.SUCCESS, Opcode.SUBDOC_DICT_UPSERT, **change)
        found = self.ask(Opcode.GET_RANDOM_KEY, extras=b"\0\0\0\0\1")
        self.assertEqual((found.key, found.value[-3:], found.datatype), (b"\0k", b"[1]", 5))
        found = self.ask(Opcode.GET_RANDOM_KEY, extras=b"\0\0\0\0\0")
        self.assertEqual((found.value, found.datatype), (b"[1]", 1))
        self.ask(Opcode.HELLO, value=codes)
        self.assertStatus(Status.EINVAL, Opcode.GET_RANDOM_KEY, extras=b"\0\0\0\0\1")
        self.assertStatus(Status.EINVAL, Opcode.HELLO, value=b"\0\x24\0\6\0\x0b")

    def test_refusals(self) -> None:
        """A missing document, an active copy instead of a replica, a session without the features."""
        if not snappy.FEATURES:
            raise SkipTest("cramjam is not installed")
        self.assertStatus(Status.KEY_ENOENT, Opcode.GETEX, key=b"k")
        self.set()
        self.assertEqual(self.ask(Opcode.GETEX_REPLICA, key=b"k").specific, Status.NOT_MY_VBUCKET)
        for features in (b"\0\6\0\7\0\x0b", b"\0\6\0\7\0\x13", b"\0\7\0\x0b\0\x13"):
            self.ask(Opcode.HELLO, value=features)
            self.assertEqual(self.ask(Opcode.GETEX, key=b"k").specific, Status.NOT_SUPPORTED)


class Hello(CommandCase):
    """Negotiation."""

    def hello(self, *codes: int) -> list[int]:
        """Return what was enabled."""
        answer = self.assertStatus(Status.SUCCESS, Opcode.HELLO, value=b"".join(pack(">H", c) for c in codes))
        return list(unpack(f">{len(answer.value) // 2}H", answer.value))

    def test_the_subset_in_order(self) -> None:
        """Known features come back in ascending order; unknown ones and reordering do not."""
        asked = list(bytes.fromhex("0306 0708 0b0c 100f 1115 1217 141c 210e 0d1e 0a04")) + [0xFFFF, 0x04]
        compression = [0x0A] if snappy.FEATURES else []
        wanted = [0x03, 0x04, 0x06, 0x07, 0x08, *compression, 0x0B, 0x0C, 0x0D, 0x0F]
        wanted += [0x10, 0x11, 0x12, 0x14, 0x15, 0x17, 0x1C, 0x1E, 0x21]
        self.assertEqual(self.hello(*asked), wanted)

    def test_again_begins_from_nothing(self) -> None:
        """A second HELLO switches off what it does not name."""
        self.hello(Feature.COLLECTIONS)
        self.assertTrue(self.session.collections)
        self.hello()
        self.assertFalse(self.session.collections or self.session.xerror)

    def test_impossible_combinations(self) -> None:
        """Pushes need Duplex, VATTR needs XATTR, and codes have two bytes."""
        for value in (b"\0\x0d", b"\0\x1f", b"\0\x15", b"\0"):
            self.assertStatus(Status.EINVAL, Opcode.HELLO, value=value)

    def test_as_many_as_there_are(self) -> None:
        """A client may ask for each code there is, but not for more, which would take long to read."""
        self.hello(Feature.XERROR, Feature.JSON)
        every = b"".join(pack(">H", code) for code in range(2**16))
        answer = self.assertStatus(Status.EINVAL, Opcode.HELLO, value=every + b"\0\7")
        self.assertIn(b"the list has 65537 features; there are 65536 codes", answer.value)
        self.assertEqual(self.session.features, {Feature.XERROR, Feature.JSON})
        answer = self.assertStatus(Status.SUCCESS, Opcode.HELLO, value=every)
        self.assertEqual(answer.value, b"".join(pack(">H", code) for code in sorted(handshake.FEATURES)))


class Collections(CommandCase):
    """Keys with a collection prefix."""

    features = (Feature.XERROR, Feature.COLLECTIONS, Feature.JSON)

    def test_the_default_collection(self) -> None:
        """Prefix 00 is part of the held key; getk, observe and the random key show it."""
        self.set(b"\0k")
        vbucket = self.bucket.vbuckets[0]
        assert vbucket is not None
        self.assertEqual(list(vbucket.items), [b"\0k"])
        self.assertEqual(self.ask(Opcode.GETK, key=b"\0k").key, b"\0k")
        self.assertEqual(self.ask(Opcode.GET_RANDOM_KEY, extras=bytes(4)).key, b"\0k")
        answer = self.ask(Opcode.OBSERVE, value=b"\0\0\0\2\0k")
        self.assertEqual(answer.value[:7], b"\0\0\0\2\0k\0")

    def test_prefixes(self) -> None:
        """Other collections are unknown; a prefix that is malformed, or all there is, is EINVAL."""
        for key in (b"\x08k", b"\x80\x01k", b"\xff\xff\xff\xff\x0fk"):
            answer = self.assertStatus(Status.UNKNOWN_COLLECTION, Opcode.GET, key=key)
            self.assertEqual(json.loads(answer.value)["manifest_uid"], "0")
        for key in (b"\0", b"\x80", b"\x80\x00k", b"\xff\xff\xff\xff\xffk", b"\xff\xff\xff\xff\x1fk",
                    b"\0" + b"k" * 251):  # fmt: skip
            self.assertStatus(Status.EINVAL, Opcode.GET, key=key)
        self.assertEqual(self.set(b"\0" + b"k" * 250).specific, 0)

    def test_manifest_and_ids(self) -> None:
        """The default scope and collection have id 0, by name or left out; others are unknown."""
        manifest = json.loads(self.ask(Opcode.GET_MANIFEST).value)
        self.assertEqual(manifest["scopes"][0]["collections"], [{"name": "_default", "uid": "0"}])
        for path in (b"_default._default", b"."):
            self.assertEqual(self.ask(Opcode.GET_COLLECTION_ID, value=path).extras, bytes(12))
            self.assertEqual(self.ask(Opcode.GET_COLLECTION_ID, key=path).extras, bytes(12))
        self.assertEqual(self.ask(Opcode.GET_SCOPE_ID, value=b"_default").extras, bytes(12))
        self.assertStatus(Status.UNKNOWN_COLLECTION, Opcode.GET_COLLECTION_ID, value=b"_default.x")
        self.assertStatus(Status.UNKNOWN_SCOPE, Opcode.GET_COLLECTION_ID, value=b"x._default")
        self.assertStatus(Status.UNKNOWN_SCOPE, Opcode.GET_SCOPE_ID, value=b"x")
        for path in (b"_default", b"a.b.c"):
            self.assertStatus(Status.EINVAL, Opcode.GET_COLLECTION_ID, value=path)
        name = b"x" * 251
        self.assertStatus(Status.UNKNOWN_SCOPE, Opcode.GET_COLLECTION_ID, value=name + b"." + name)
        for opcode in (Opcode.GET_COLLECTION_ID, Opcode.GET_SCOPE_ID):
            answer = self.assertStatus(Status.EINVAL, opcode, value=name + b"." + name + b"x")
            self.assertIn(b"the path has 504 bytes, not at most 503", answer.value)
        self.assertStatus(Status.EINVAL, Opcode.GET_COLLECTION_ID)
        self.assertStatus(Status.EINVAL, Opcode.GET_COLLECTION_ID, value=b".", vbucket=1)


class NamedCollections(CommandCase):
    """Collections other than the default one: ids 8 and 9, and one whose id takes two bytes."""

    features = (Feature.XERROR, Feature.COLLECTIONS, Feature.JSON, Feature.MUTATION_SEQNO, Feature.XATTR)
    prefixes = (b"\0", b"\x08", b"\x09", b"\x80\x01")

    def setUp(self) -> None:
        """Create them."""
        super().setUp()
        manifest = Manifest().with_scope("s").with_collection("s", "a").with_collection("s", "b", 100)
        scope = manifest.scope("s")
        large = Collection(128, "large", scope.id, "s")
        scopes = {**manifest.scopes, "s": scope._replace(collections={**scope.collections, "large": large})}
        self.bucket.set_manifest(Manifest(0xABC, (9, 129), scopes))

    def test_ids(self) -> None:
        """Scope and collection are found by name; the answer has the uid of the manifest and the id."""
        for path, number in ((b"s.a", 8), (b"s.b", 9), (b"s.large", 128), (b"_default.", 0), (b".", 0)):
            answer = self.ask(Opcode.GET_COLLECTION_ID, value=path)
            self.assertEqual(unpack(">QI", answer.extras), (0xABC, number))
        self.assertEqual(unpack(">QI", self.ask(Opcode.GET_SCOPE_ID, value=b"s").extras), (0xABC, 8))
        self.assertEqual(unpack(">QI", self.ask(Opcode.GET_SCOPE_ID, value=b"s.x").extras), (0xABC, 8))
        for status, opcode, path in (
            (Status.UNKNOWN_COLLECTION, Opcode.GET_COLLECTION_ID, b"s.x"),
            (Status.UNKNOWN_COLLECTION, Opcode.GET_COLLECTION_ID, b"s."),
            (Status.UNKNOWN_SCOPE, Opcode.GET_COLLECTION_ID, b"x.a"),
            (Status.UNKNOWN_SCOPE, Opcode.GET_SCOPE_ID, b"x"),
            (Status.UNKNOWN_SCOPE, Opcode.GET_SCOPE_ID, b"\xff"),
        ):
            answer = self.assertStatus(status, opcode, value=path)
            self.assertEqual(json.loads(answer.value)["manifest_uid"], "abc")

    def test_manifest(self) -> None:
        """The manifest has what was created, with the longest life where there is one."""
        manifest = json.loads(self.ask(Opcode.GET_MANIFEST).value)
        self.assertEqual(manifest["uid"], "abc")
        self.assertEqual(
            manifest["scopes"][0]["collections"][-2:],
            [{"name": "b", "uid": "9", "maxTTL": 100}, {"name": "a", "uid": "8"}],
        )

    def test_one_key_in_each(self) -> None:
        """The same key in several collections is a document in each, for every command with a key."""
        for number, prefix in enumerate(self.prefixes):
            key, text = prefix + b"k", b"%d" % number
            self.assertStatus(Status.KEY_ENOENT, Opcode.GET, key=key)
            self.assertStatus(Status.SUCCESS, Opcode.ADD, key=key, extras=bytes(8), value=text)
        for number, prefix in enumerate(self.prefixes):
            key = prefix + b"k"
            self.assertEqual(self.ask(Opcode.GET, key=key).value, b"%d" % number)
            self.assertEqual(self.ask(Opcode.GETK, key=key).key, key)
            counted = self.ask(Opcode.INCREMENT, key=key, extras=pack(">QQI", 10, 0, 0))
            self.assertEqual(counted.value, pack(">Q", 10 + number))
            self.assertStatus(Status.SUCCESS, Opcode.APPEND, key=key, value=b"5")
            self.assertEqual(self.ask(Opcode.GET, key=key).value, b"%d5" % (10 + number))
            self.assertStatus(Status.SUCCESS, Opcode.TOUCH, key=key, extras=pack(">I", 0))
            self.assertStatus(Status.SUCCESS, Opcode.GET_META, key=key)
            cas = self.ask(Opcode.GET_LOCKED, key=key).cas
            self.assertStatus(Status.SUCCESS, Opcode.UNLOCK, key=key, cas=cas)
            lookup = {"extras": b"\0\x09\4", "value": b"$document"}
            self.assertStatus(Status.SUCCESS, Opcode.SUBDOC_EXISTS, key=key, **lookup)
            observed = pack(">HH", 0, len(key)) + key
            self.assertTrue(self.ask(Opcode.OBSERVE, value=observed).value.startswith(observed + b"\0"))
            random = self.ask(Opcode.GET_RANDOM_KEY, extras=pack(">I", (0, 8, 9, 128)[number]))
            self.assertEqual(random.key, key)
        self.assertStatus(Status.SUCCESS, Opcode.DELETE, key=b"\x08k")
        found = [self.ask(Opcode.GET, key=prefix + b"k").specific for prefix in self.prefixes]
        self.assertEqual(found, [0, Status.KEY_ENOENT, 0, 0])
        self.assertStatus(Status.KEY_ENOENT, Opcode.GET_RANDOM_KEY, extras=pack(">I", 8))

    def test_unknown(self) -> None:
        """A collection that is not there has the status of its own, with the manifest, for every command."""
        commands: tuple[tuple[Opcode, dict[str, Any]], ...] = (
            (Opcode.GET, {}),
            (Opcode.SET, {"extras": bytes(8)}),
            (Opcode.DELETE, {}),
            (Opcode.INCREMENT, {"extras": bytes(20)}),
            (Opcode.GAT, {"extras": bytes(4)}),
            (Opcode.SUBDOC_MULTI_LOOKUP, {"value": b"\xc6\0\0\1a"}),
        )
        for opcode, parts in commands:
            for prefix in (b"\x01", b"\x07", b"\x0a", b"\x81\x01", b"\xff\xff\xff\xff\x0f"):
                answer = self.assertStatus(Status.UNKNOWN_COLLECTION, opcode, key=prefix + b"k", **parts)
                self.assertEqual(json.loads(answer.value)["manifest_uid"], "abc")
        observed = pack(">HH", 0, 2) + b"\x0ak"
        self.assertStatus(Status.UNKNOWN_COLLECTION, Opcode.OBSERVE, value=observed)
        self.assertStatus(Status.UNKNOWN_COLLECTION, Opcode.GET_RANDOM_KEY, extras=pack(">I", 10))

    def test_long_keys(self) -> None:
        """A key has at most 246 bytes in a named collection, whatever the length of its id, and 250 in the
        default one."""
        for prefix, longest in zip(self.prefixes, (250, 246, 246, 246), strict=True):
            self.assertEqual(self.set(prefix + b"k" * longest).specific, 0)
            for opcode, extras in ((Opcode.SET, bytes(8)), (Opcode.GET, b"")):
                key = prefix + b"k" * (longest + 1)
                self.assertStatus(Status.EINVAL, opcode, key=key, extras=extras)

    def test_longest_life(self) -> None:
        """A document of a collection with a longest life gets that where it asks for more, or forever."""
        now = int(self.bucket.unix_time())
        vbucket = self.bucket.vbuckets[0]
        assert vbucket is not None
        for wire, stored in (
            (0, now + 100),
            (50, now + 50),
            (100, now + 100),
            (101, now + 100),
            (now + 10, now + 10),
            (now + 10**6, now + 100),
            (0xFFFFFFFE, now + 100),
        ):
            extras = pack(">II", 0, wire)
            self.assertStatus(Status.SUCCESS, Opcode.SET, key=b"\x09k", extras=extras)
            self.assertEqual(vbucket.items[b"\x09k"].expiry, stored, wire)
            self.assertStatus(Status.SUCCESS, Opcode.TOUCH, key=b"\x09k", extras=extras[4:])
            self.assertEqual(vbucket.items[b"\x09k"].expiry, stored, wire)
        self.assertStatus(Status.SUCCESS, Opcode.INCREMENT, key=b"\x09n", extras=pack(">QQI", 1, 1, 0))
        self.assertEqual(vbucket.items[b"\x09n"].expiry, now + 100)
        self.set(b"\x08k")
        self.assertEqual(vbucket.items[b"\x08k"].expiry, 0)

    def test_dropped(self) -> None:
        """The documents of a dropped collection are gone at once, and memory is given back soon; the others
        stay. A new collection of the same name is empty."""
        for prefix in self.prefixes:
            self.set(prefix + b"k")
        vbucket = self.bucket.vbuckets[0]
        assert vbucket is not None
        self.bucket.set_manifest(self.bucket.collections.manifest.without_collection("s", "a"))
        self.assertStatus(Status.UNKNOWN_COLLECTION, Opcode.GET, key=b"\x08k")
        self.assertStatus(Status.UNKNOWN_COLLECTION, Opcode.SET, key=b"\x08k", extras=bytes(8))
        self.bucket.set_manifest(self.bucket.collections.manifest.with_collection("s", "a"))
        answer = self.ask(Opcode.GET_COLLECTION_ID, value=b"s.a")
        self.assertEqual(unpack(">QI", answer.extras), (0xABE, 129))
        self.assertStatus(Status.KEY_ENOENT, Opcode.GET, key=b"\x81\x01k")
        self.clock.advance(0)
        self.assertFalse(self.bucket.dropper.is_busy)
        self.assertEqual(set(vbucket.items), {b"\0k", b"\x09k", b"\x80\x01k"})
        self.assertEqual(self.bucket.memory_bytes, sum(item.size for item in vbucket.items.values()))

    def test_without_collections(self) -> None:
        """A connection that did not ask for collections has the default one; once that is gone, none."""
        self.set(b"\0k")
        self.ask(Opcode.HELLO, value=pack(">HH", Feature.XERROR, Feature.JSON))
        self.assertEqual(self.ask(Opcode.GETK, key=b"k").key, b"k")
        self.assertEqual(self.ask(Opcode.GET_RANDOM_KEY).key, b"k")
        self.assertStatus(Status.KEY_ENOENT, Opcode.GET, key=b"\x08k")
        self.bucket.set_manifest(self.bucket.collections.manifest.without_collection("_default", "_default"))
        for opcode, extras in ((Opcode.GET, b""), (Opcode.SET, bytes(8))):
            self.assertStatus(Status.UNKNOWN_COLLECTION, opcode, key=b"k", extras=extras)

    def test_statistics(self) -> None:
        """Each collection and scope has its documents, their size, its names and its longest life; one of
        them can be asked for by its path or its id."""
        for number, prefix in enumerate(self.prefixes):
            for n in range(number + 1):
                self.set(prefix + b"%d" % n, bytes(10), vbucket=n % 4)
        stats = self.stats(b"collections")
        self.assertEqual(stats["manifest_uid"], "abc")
        for head, items, name, scope in (
            ("0x0:0x0", 1, "_default", "_default"),
            ("0x8:0x8", 2, "a", "s"),
            ("0x8:0x9", 3, "b", "s"),
            ("0x8:0x80", 4, "large", "s"),
        ):
            self.assertEqual(stats[f"{head}:items"], str(items))
            self.assertEqual((stats[f"{head}:name"], stats[f"{head}:scope_name"]), (name, scope))
            one = {key: text for key, text in stats.items() if key.startswith(f"{head}:")}
            for group in (f"collections {scope}.{name}", f"collections-byid {head.partition(':')[2]}"):
                self.assertEqual(self.stats(group.encode()), {"manifest_uid": "abc", **one})
        self.assertEqual(stats["0x8:0x9:maxTTL"], "100")
        self.assertNotIn("0x8:0x8:maxTTL", stats)
        self.assertEqual(stats["0x8:0x80:data_size"], str(4 * (2 + 1 + 10)))
        self.assertEqual(
            sum(int(text) for key, text in stats.items() if key.endswith(":collections_mem_used")),
            self.bucket.memory_bytes,
        )
        scopes = self.stats(b"scopes")
        self.assertEqual((scopes["0x8:items"], scopes["0x8:collections"]), ("9", "3"))
        self.assertEqual((scopes["0x0:items"], scopes["0x0:name"]), ("1", "_default"))
        for group in (b"scopes s", b"scopes-byid 0x8", b"scopes-byid 8"):
            self.assertEqual(self.stats(group)["0x8:items"], "9")

    def stats(self, group: bytes) -> dict[str, str]:
        """Return a group of statistics."""
        answers = self.all(Opcode.STAT, key=group)
        self.assertEqual((answers[-1].key, answers[-1].value), (b"", b""))
        return {one.key.decode(): one.value.decode() for one in answers[:-1]}

    def test_statistics_of_what_is_not_there(self) -> None:
        """Unknown collections and scopes have their own statuses; another form is EINVAL."""
        for group, status in (
            (b"collections s.x", Status.UNKNOWN_COLLECTION),
            (b"collections x.a", Status.UNKNOWN_SCOPE),
            (b"collections-byid 0x77", Status.UNKNOWN_COLLECTION),
            (b"scopes x", Status.UNKNOWN_SCOPE),
            (b"scopes-byid 9", Status.UNKNOWN_SCOPE),
            (b"collections s", Status.EINVAL),
            (b"collections s.a.b", Status.EINVAL),
            (b"collections-byid s.a", Status.EINVAL),
            (b"scopes-byid \xff", Status.EINVAL),
            (b"collectionsx", Status.KEY_ENOENT),
        ):
            self.assertStatus(status, Opcode.STAT, key=group)

    def test_statistics_of_many_documents(self) -> None:
        """They are measured in bounded steps, once for all who ask meanwhile."""
        for n in range(40):
            self.set(b"\x08%d" % n)
        idle = len(self.clock.getDelayedCalls())
        with patch.object(measurement, "KEYS_A_TURN", 10):
            waiting = [dispatch(self.session, self.frame(Opcode.STAT, key=b"collections")) for _ in range(3)]
            for turn in range(4):
                assert isinstance(waiting[0], Deferred)
                self.assertNoResult(waiting[0])
                self.assertEqual(len(self.clock.getDelayedCalls()), idle + 1, turn)
                one_turn(self.clock)
        answers = [self.successResultOf(one) for one in waiting if isinstance(one, Deferred)]
        self.assertEqual((len(answers), len(set(answers))), (3, 1))
        self.assertIn(b"0x8:0x8:items", answers[0])


class Configurations(CommandCase):
    """GET_CLUSTER_CONFIG and what NOT_MY_VBUCKET carries."""

    features = (Feature.XERROR, Feature.JSON, Feature.DEDUPE_NOT_MY_VBUCKET_CLUSTERMAP)

    def test_known_version(self) -> None:
        """A client that has this version or a newer one gets nothing."""
        answer = self.ask(Opcode.GET_CLUSTER_CONFIG)
        self.assertEqual((json.loads(answer.value)["rev"], answer.datatype), (7, Datatype.JSON))
        for epoch, revision, is_new in (
            (1, 6, True),
            (0, 99, True),
            (1, 7, False),
            (1, 8, False),
            (2, 0, False),
        ):
            answer = self.ask(Opcode.GET_CLUSTER_CONFIG, extras=pack(">qq", epoch, revision))
            self.assertEqual((answer.specific, bool(answer.value)), (0, is_new), (epoch, revision))

    def test_not_my_vbucket_says_it_once(self) -> None:
        """With the feature a version is sent once on a connection, however it was sent."""
        first = self.assertStatus(Status.NOT_MY_VBUCKET, Opcode.GET, key=b"k", vbucket=9)
        self.assertEqual((json.loads(first.value)["rev"], first.datatype), (7, Datatype.JSON))
        self.assertEqual(self.ask(Opcode.GET, key=b"k", vbucket=9).value, b"")
        self.node.cluster.revision = (1, 8)
        self.ask(Opcode.GET_CLUSTER_CONFIG)
        self.assertEqual(self.ask(Opcode.GET, key=b"k", vbucket=9).value, b"")
        self.node.cluster.revision = (1, 9)
        self.assertEqual(json.loads(self.ask(Opcode.GET, key=b"k", vbucket=9).value)["rev"], 9)


class Strangers(CommandCase):
    """Connections without credentials where there is no open bucket."""

    def setUp(self) -> None:
        """Close the bucket."""
        super().setUp()
        self.node.cluster.unauthenticated_bucket = None

    def test_only_the_handshake(self) -> None:
        """Every command but HELLO, SASL and the error map is EACCESS, even a malformed or unknown one."""
        allowed = {
            Opcode.HELLO,
            Opcode.SASL_LIST_MECHS,
            Opcode.SASL_AUTH,
            Opcode.SASL_STEP,
            Opcode.GET_ERROR_MAP,
        }
        for opcode in set(range(256)) - allowed:
            self.assertEqual(self.ask(opcode).specific, Status.EACCESS, opcode)
        mechanisms = self.ask(Opcode.SASL_LIST_MECHS).value
        self.assertEqual(mechanisms, b"SCRAM-SHA512 SCRAM-SHA256 SCRAM-SHA1 PLAIN")

    def test_steps_out_of_order(self) -> None:
        """A step too early or too late, and nonsense, are EINVAL; no such mechanism is 0x20."""
        self.assertStatus(Status.EINVAL, Opcode.SASL_STEP, key=b"SCRAM-SHA1")
        self.assertStatus(Status.EINVAL, Opcode.SASL_AUTH, key=b"SCRAM-SHA1", value=b"nonsense")
        self.assertStatus(Status.EINVAL, Opcode.SASL_AUTH, key=b"PLAIN", value=b"nonsense")
        self.assertStatus(Status.AUTH_ERROR, Opcode.SASL_AUTH, key=b"CRAM-MD5")
        first = self.assertStatus(
            Status.AUTH_CONTINUE, Opcode.SASL_AUTH, key=b"scram-sha1", value=b"n,,n=x,r=1"
        )
        self.assertTrue(first.value.startswith(b"r=1"))
        self.assertStatus(Status.EINVAL, Opcode.SASL_AUTH, key=b"SCRAM-SHA1", value=b"n,,n=x,r=1")
        self.assertStatus(Status.EINVAL, Opcode.SASL_STEP, key=b"SCRAM-SHA1", value=b"c=biws,r=1,p=")

    def test_unknown_users_get_the_same_salt_each_time(self) -> None:
        """Two requests do not reveal which users exist."""
        salts = set()
        for _ in range(2):
            answer = self.ask(Opcode.SASL_AUTH, key=b"SCRAM-SHA1", value=b"n,,n=nobody,r=1")
            salts.add(answer.value.split(b",")[1])
            self.ask(Opcode.SASL_STEP, key=b"SCRAM-SHA1")
        self.assertEqual(len(salts), 1)


class Credentials(ServedNode):
    """Authentication over a socket."""

    @inlineCallbacks
    def setUp(self) -> Steps:
        """Create a user with access to one of two buckets."""
        yield super().setUp()
        yield self.add_bucket("secret")
        yield self.node.cluster.users.add(USER, PASSWORD)
        self.node.cluster.allowed.add((USER, "default"))
        self.client = yield self.connect()
        yield self.client.hello(Feature.XERROR)

    @inlineCallbacks
    def test_every_mechanism(self) -> Steps:
        """Each lets the right password in, and the user's buckets only; default is not implied."""
        for mechanism in ("SCRAM-SHA512", "SCRAM-SHA256", "SCRAM-SHA1", "PLAIN"):
            client = yield self.connect()
            yield client.hello(Feature.XERROR)
            answer = yield (client.plain() if mechanism == "PLAIN" else client.scram(mechanism))
            self.assertEqual(answer.specific, Status.SUCCESS, mechanism)
            self.assertEqual((yield client.ask(Opcode.GET, key=b"k")).specific, Status.NO_BUCKET)
            config = yield client.ask(Opcode.GET_CLUSTER_CONFIG)
            self.assertEqual(json.loads(config.value)["config"], "None")
            self.assertEqual((yield client.ask(Opcode.LIST_BUCKETS)).value, b"default")
            for name, status in ((b"secret", Status.EACCESS), (b"none", Status.EACCESS), (b"default", 0)):
                self.assertEqual((yield client.ask(Opcode.SELECT_BUCKET, key=name)).specific, status)
            self.assertEqual((yield client.ask(Opcode.GET, key=b"k")).specific, Status.KEY_ENOENT)
            self.assertEqual((yield client.ask(Opcode.SELECT_BUCKET, key=b"@no bucket@")).specific, 0)
            self.assertEqual((yield client.ask(Opcode.GET, key=b"k")).specific, Status.NO_BUCKET)

    @inlineCallbacks
    def test_wrong_credentials_close_the_open_bucket_too(self) -> Steps:
        """After a wrong password nothing is allowed, even what was allowed before; the connection stays
        open."""
        self.assertEqual((yield self.client.ask(Opcode.GET, key=b"k")).specific, Status.KEY_ENOENT)
        for user, password in ((USER, "wrong"), ("nobody", PASSWORD)):
            self.assertEqual((yield self.client.plain(user, password)).specific, Status.AUTH_ERROR)
            self.assertEqual((yield self.client.ask(Opcode.GET, key=b"k")).specific, Status.EACCESS)
            failed = yield self.client.scram("SCRAM-SHA256", user, password)
            self.assertEqual(failed.specific, Status.AUTH_ERROR)
            self.assertEqual((yield self.client.ask(Opcode.NOOP)).specific, Status.EACCESS)
        self.assertEqual((yield self.client.plain()).specific, 0)

    @inlineCallbacks
    def test_a_wrong_password_closes_the_bucket_of_the_user_before(self) -> Steps:
        """A bucket that was selected with the right password is shut by a wrong one."""
        yield self.client.plain()
        yield self.client.ask(Opcode.SELECT_BUCKET, key=b"default")
        yield self.client.ask(Opcode.SASL_AUTH, key=b"SCRAM-SHA1", value=b"n,,n=ada,r=1")
        self.assertEqual((yield self.client.ask(Opcode.GET, key=b"k")).specific, Status.EACCESS)
        yield self.client.ask(Opcode.SASL_STEP, key=b"SCRAM-SHA1", value=b"c=biws,r=1,p=AAAA")
        self.assertEqual((yield self.client.ask(Opcode.GET, key=b"k")).specific, Status.EACCESS)
        yield self.client.plain()
        self.assertEqual((yield self.client.ask(Opcode.GET, key=b"k")).specific, Status.KEY_ENOENT)

    @inlineCallbacks
    def test_a_user_named_like_a_bucket_has_it_selected(self) -> Steps:
        """As before 5.0, the bucket's name and password are enough."""
        yield self.node.cluster.users.add("secret", "bucket password")
        self.node.cluster.allowed.add(("secret", "secret"))
        yield self.client.plain("secret", "bucket password")
        stored = yield self.client.ask(Opcode.SET, key=b"k", extras=bytes(8))
        self.assertEqual(stored.specific, 0)
        self.assertEqual(self.node.buckets["secret"].item_count, 1)

    @inlineCallbacks
    def test_another_user_loses_a_bucket_that_is_not_theirs(self) -> Steps:
        """Authenticating again keeps the bucket only if the new user may use it."""
        yield self.node.cluster.users.add("eve", "eve")
        yield self.client.plain()
        yield self.client.ask(Opcode.SELECT_BUCKET, key=b"default")
        yield self.client.plain("eve", "eve")
        self.assertEqual((yield self.client.ask(Opcode.GET, key=b"k")).specific, Status.NO_BUCKET)

    @inlineCallbacks
    def test_strangers_keep_to_the_open_bucket(self) -> Steps:
        """Without credentials the open bucket is the only one, by any name."""
        self.assertEqual((yield self.client.ask(Opcode.LIST_BUCKETS)).value, b"default")
        self.assertEqual(
            (yield self.client.ask(Opcode.SELECT_BUCKET, key=b"secret")).specific, Status.EACCESS
        )
        self.assertEqual((yield self.client.ask(Opcode.VERSION)).value, b"7.6.0-couchnode")


class Registered(SynchronousTestCase):
    """The table as a whole."""

    def test_opcodes_of_the_protocol(self) -> None:
        """Every named opcode is handled."""
        missing = {Opcode(op) for op in map(int, Opcode) if COMMANDS[op] is None}
        self.assertEqual(missing, set())
