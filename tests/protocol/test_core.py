"""Hashing, SASL, handshake, cluster map, addresses, statuses and durability, without a network."""

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from couchbase import exceptions
from couchbase.exceptions import (
    ArgumentError,
    AuthError,
    BucketNotFoundError,
    CouchbaseError,
    InvalidError,
    KeyExistsError,
    ProtocolError,
    TemporaryFailError,
)
from couchbase.protocol import durability, observation, sasl
from couchbase.protocol.clustermap import ClusterMap, NodeAddress, parse_cluster_map, split_stream
from couchbase.protocol.connstr import Seed, parse_connection_string, seeds_from_hosts, split_host_port
from couchbase.protocol.constants import Feature, Opcode, Status
from couchbase.protocol.frames import FrameReader, encode_response
from couchbase.protocol.handshake import Credentials, handshake
from couchbase.protocol.hashing import vbucket_of
from couchbase.protocol.operations import OPERATIONS, complete
from couchbase.protocol.plans import Ask, Compute, Pause, RoundTrip
from couchbase.protocol.request import Request
from couchbase.protocol.statuses import RC_OF_STATUS, Action, action_for, result_code


def response(opcode, status=0, **fields):
    """Return a response as the frame that a reader cuts."""
    (frame,) = FrameReader().feed(encode_response(opcode, status, **fields))
    return frame


class HashingTests(SynchronousTestCase):
    """Keys and vbuckets."""

    def test_documented_vbuckets(self):
        """The protocol's table of keys, for 1024, 64 and 16 vbuckets."""
        for key, *expected in (
            ("foo", 115, 51, 3),
            ("hello", 528, 16, 0),
            ("21st_amendment_brewery_cafe", 553, 41, 9),
            ("h\u00e9", 600, 24, 8),
        ):
            self.assertEqual([vbucket_of(key.encode(), count) for count in (1024, 64, 16)], expected)

    def test_modulo_not_mask(self):
        """A map of 100 vbuckets is legal: 3187 mod 100."""
        self.assertEqual(vbucket_of(b"foo", 100), 87)


class SaslTests(SynchronousTestCase):
    """SCRAM against the documented exchange, and both ends against each other."""

    PROOFS = {
        "SCRAM-SHA1": ("Nfbbr378vdFbvLY/bH/kA0q9eck=", "YTrD37Yk8Ty78Lxo+VYHgSimX8A="),
        "SCRAM-SHA256": (
            "9gx2vCn1XMcU5KuXw5mAn12qAiP3Z65CWR9RSIPUaF0=",
            "Qqe0lmms3W+5bRA1lJ8p9NR72l/5tqMQKZqPSCb2lec=",
        ),
    }
    SERVER_FIRST = b"r=rOprNGfwEbeRWgbNEkqOSRVNONCE0123456789,s=c2FsdHNhbHRzYWx0c2FsdA==,i=4096"

    def test_documented_vectors(self):
        """Proof and server signature of the documented exchange."""
        for mechanism, (proof, signature) in self.PROOFS.items():
            client = sasl.ScramClient(mechanism, "Administrator", "password", "rOprNGfwEbeRWgbNEkqO")
            self.assertEqual(client.first(), b"n,,n=Administrator,r=rOprNGfwEbeRWgbNEkqO")
            self.assertTrue(client.step(self.SERVER_FIRST).endswith(b",p=" + proof.encode()))
            client.finish(b"v=" + signature.encode())
            client.finish(b"v=" + signature.encode() + b",e=failed")
            self.assertRaises(sasl.SaslFailure, client.finish, b"v=AAAA")

    def exchange(self, user, password, known_user="us,er=", known="secret"):
        credential = sasl.derive_scram_credential("SCRAM-SHA256", known, b"salt" * 4, 4096)
        server = sasl.ScramServer(
            "SCRAM-SHA256", {known_user: credential}.get, "servernonce", lambda name: b"decoydecoydecoy!"
        )
        client = sasl.ScramClient("SCRAM-SHA256", user, password, "0x75 0xffffffcd nonce")
        client.finish(server.final(client.step(server.first(client.first()))))
        return server.username

    def test_both_ends_agree(self):
        """The right password passes, with ',' and '=' in the user's name."""
        self.assertEqual(self.exchange("us,er=", "secret"), "us,er=")

    def test_wrong_password_and_unknown_user_fail_alike(self):
        """Neither the message nor the step reveals which of the two was wrong."""
        one = self.assertRaises(sasl.SaslFailure, self.exchange, "us,er=", "wrong")
        other = self.assertRaises(sasl.SaslFailure, self.exchange, "nobody", "secret")
        self.assertEqual(str(one), str(other))

    def test_hostile_iteration_counts(self):
        """A server cannot make the client weak, or busy for minutes."""
        for count in (b"1", b"4095", b"99999999999", b"x"):
            client = sasl.ScramClient("SCRAM-SHA1", "u", "p", "abc")
            self.assertRaises(sasl.SaslMalformed, client.step, b"r=abcdef,s=c2FsdA==,i=" + count)

    @given(st.binary(max_size=80))
    def test_any_bytes(self, data):
        """Arbitrary messages fail as SASL failures, nothing else."""
        server = sasl.ScramServer("SCRAM-SHA1", lambda name: None, "n", lambda name: b"s")
        for step in (server.first, server.final, sasl.parse_plain):
            try:
                step(data)
            except sasl.SaslFailure:
                pass


class HandshakeTests(SynchronousTestCase):
    """The plan, driven by hand."""

    def start(self, **options):
        keywords = {
            "agent": "test",
            "credentials": Credentials("u", "p"),
            "bucket": "b",
            "nonce": "abc",
            "plain_allowed": True,
        }
        keywords.update(options)
        plan = handshake(**keywords)
        return plan, next(plan)

    def opcodes(self, step):
        self.assertIsInstance(step, RoundTrip)
        return [opcode for opcode, _ in step.requests]

    def test_plain(self):
        """HELLO and mechanisms, AUTH, then error map, bucket and configuration in one write each."""
        plan, step = self.start()
        self.assertEqual(self.opcodes(step), [Opcode.HELLO, Opcode.SASL_LIST_MECHS])
        hello = response(0x1F, value=Feature.XERROR.to_bytes(2, "big"))
        step = plan.send([hello, response(0x20, value=b"PLAIN CRAM-MD5")])
        self.assertEqual(step.requests, [(Opcode.SASL_AUTH, {"key": b"PLAIN", "value": b"\0u\0p"})])
        step = plan.send([response(0x21)])
        self.assertEqual(
            self.opcodes(step), [Opcode.GET_ERROR_MAP, Opcode.SELECT_BUCKET, Opcode.GET_CLUSTER_CONFIG]
        )
        error_map = response(
            0xFE, value=b'{"version":2,"errors":{"9":{"name":"LOCKED"},"7f00":{"name":"NEW"}}}'
        )
        with self.assertRaises(StopIteration) as done:
            plan.send([error_map, response(0x89), response(0xB5, value=b"{}")])
        session = done.exception.value
        self.assertTrue(session.xerror)
        self.assertEqual(session.config, b"{}")
        self.assertEqual(list(session.error_map), [0x7F00])
        self.assertEqual(session.error_map[0x7F00].name, "NEW")

    def test_unknown_statuses(self):
        """If there is no error map yet, it is requested; then a step is repeated while the map says so."""
        plan, _ = self.start()
        hello = response(0x1F, value=Feature.XERROR.to_bytes(2, "big"))
        plan.send([hello, response(0x20, value=b"PLAIN")])
        step = plan.send([response(0x21, 0x7F00)])
        self.assertEqual(self.opcodes(step), [Opcode.GET_ERROR_MAP])
        error_map = b'{"version":2,"errors":{"7f00":{"name":"NEW","attrs":["temp","retry-later"]}}}'
        step = plan.send([response(0xFE, value=error_map)])
        for seconds, status in ((0.05, 0x7F00), (0.1, 0x7F00), (0.5, 0)):
            self.assertEqual(step, Pause(seconds))
            step = plan.send(None)
            self.assertEqual(self.opcodes(step), [Opcode.SASL_AUTH])
            step = plan.send([response(0x21, status)])
        self.assertEqual(self.opcodes(step), [Opcode.SELECT_BUCKET, Opcode.GET_CLUSTER_CONFIG])
        with self.assertRaises(StopIteration) as done:
            plan.send([response(0x89), response(0xB5, value=b"{}")])
        self.assertEqual(list(done.exception.value.error_map), [0x7F00])

    def test_scram_runs_the_slow_part_off_the_loop(self):
        """Between AUTH and STEP the plan asks for a computation."""
        plan, _ = self.start()
        step = plan.send([response(0x1F), response(0x20, value=b"SCRAM-SHA1 PLAIN")])
        self.assertEqual(step.requests[0][1]["key"], b"SCRAM-SHA1")
        step = plan.send([response(0x21, Status.AUTH_CONTINUE, value=b"r=abcd,s=c2FsdA==,i=4096")])
        self.assertIsInstance(step, Compute)
        step = plan.send(step.function(*step.arguments))
        self.assertEqual(self.opcodes(step), [Opcode.SASL_STEP])
        error = self.assertRaises(AuthError, plan.send, [response(0x22, value=b"v=AAAA")])
        self.assertIn("did not prove", error.message)

    def test_password_is_not_sent_in_the_clear(self):
        """PLAIN is not used where it is not allowed, even if the server offers nothing else."""
        plan, _ = self.start(plain_allowed=False)
        error = self.assertRaises(CouchbaseError, plan.send, [response(0x1F), response(0x20, value=b"PLAIN")])
        self.assertEqual(error.rc, exceptions.SASLMECH_UNAVAILABLE)

    def test_refused(self):
        """Refusals name their cause: credentials, bucket, not ready."""
        for status, expected in (
            (Status.EACCESS, BucketNotFoundError),
            (Status.KEY_ENOENT, BucketNotFoundError),
            (Status.ETMPFAIL, TemporaryFailError),
        ):
            plan, _ = self.start()
            plan.send([response(0x1F), response(0x20, value=b"PLAIN")])
            plan.send([response(0x21)])
            self.assertRaises(expected, plan.send, [response(0x89, status), response(0xB5, value=b"{}")])
        plan, _ = self.start()
        plan.send([response(0x1F), response(0x20, value=b"PLAIN")])
        self.assertRaises(AuthError, plan.send, [response(0x21, Status.AUTH_ERROR)])

    def test_long_names(self):
        """An error holds only a part of a long name: a gateway remembers errors of unknown users."""
        who = Credentials("u" * 10_000, "p")
        scram = [response(0x1F), response(0x20, value=b"SCRAM-SHA1")]
        for mechanisms, answer in (
            ([response(0x1F), response(0x20, value=b"PLAIN")], response(0x21, Status.AUTH_ERROR)),
            (scram, response(0x21, Status.AUTH_ERROR)),
            (scram, response(0x21, Status.AUTH_CONTINUE, value=b"r=other,s=c2FsdA==,i=4096")),
            (scram, response(0x21, Status.SUCCESS)),
        ):
            plan, _ = self.start(credentials=who)
            plan.send(mechanisms)
            try:
                step = plan.send([answer])
                step.function(*step.arguments)
            except (AuthError, sasl.SaslFailure) as failure:
                error = failure
            if isinstance(error, sasl.SaslFailure):
                error = self.assertRaises(AuthError, plan.throw, error)
            self.assertIn("uuu", error.message)
            self.assertLess(len(str(error)), 500)

    def test_no_credentials_and_no_configuration(self):
        """Without credentials SASL is skipped; a node may give no map over this protocol."""
        plan, step = self.start(credentials=None)
        self.assertEqual(self.opcodes(step), [Opcode.HELLO])
        plan.send([response(0x1F, Status.UNKNOWN_COMMAND)])
        with self.assertRaises(StopIteration) as done:
            plan.send([response(0x89), response(0xB5, Status.NOT_SUPPORTED)])
        self.assertIsNone(done.exception.value.config)
        for status in (Status.EACCESS, Status.AUTH_ERROR):
            plan, _ = self.start(credentials=None)
            plan.send([response(0x1F)])
            self.assertRaises(AuthError, plan.send, [response(0x89), response(0xB5, status)])


def config(**changes):
    """Return a terse bucket configuration of two nodes."""
    document = {
        "rev": 5,
        "name": "b",
        "nodeLocator": "vbucket",
        "vBucketServerMap": {
            "numReplicas": 1,
            "serverList": ["$HOST:11210", "10.0.0.2:12000"],
            "vBucketMap": [[0, 1], [1, 0], [0, -1]],
        },
        "nodesExt": [
            {"services": {"kv": 11210, "kvSSL": 11207, "mgmt": 8091}, "thisNode": True},
            {
                "hostname": "10.0.0.2",
                "services": {"kv": 12000, "mgmt": 8091},
                "alternateAddresses": {"external": {"hostname": "ext.example", "ports": {"kv": 31210}}},
            },
            {"hostname": "10.0.0.3", "services": {"mgmt": 8091, "kv": 11210}},
        ],
    }
    document.update(changes)
    return json.dumps(document).encode()


class ClusterMapTests(SynchronousTestCase):
    """Every form of configuration."""

    def test_terse(self):
        """$HOST is the host asked; nodes beyond serverList carry no data."""
        cluster = parse_cluster_map(config(), "seed")
        self.assertEqual(cluster.nodes[0], NodeAddress("seed", 11210, 11207, 8091))
        self.assertEqual((cluster.data_nodes, len(cluster.nodes), cluster.replicas), (2, 3, 1))
        self.assertEqual((cluster.active(1), cluster.replica(1, 0), cluster.replica(1, 1)), (1, 0, -1))
        self.assertEqual(cluster.nodes[0].kv_port(True), 11207)

    def test_the_same_document_is_read_once(self):
        """A node that moves its vbuckets sends its map with each refused operation: it is read once."""
        text = config(rev=77)
        read = parse_cluster_map(text, "seed")
        for _ in range(3):
            self.assertIs(parse_cluster_map(bytes(bytearray(text)), "seed"), read)
        self.assertIsNot(parse_cluster_map(text, "other"), read)
        self.assertIsNot(parse_cluster_map(config(rev=78), "seed"), read)

    def test_alternate_addresses(self):
        """The network in which the bootstrap host is found is used, or the one asked for."""
        found = parse_cluster_map(config(), "seed", bootstrap_host="ext.example")
        self.assertEqual(found.nodes[1][:2], ("ext.example", 31210))
        self.assertEqual(parse_cluster_map(config(), "s", "default", "ext.example").nodes[1].kv, 12000)
        self.assertEqual(parse_cluster_map(config(), "s", "external").nodes[1].host, "ext.example")

    def test_legacy(self):
        """Configurations of servers without nodesExt."""
        text = config(
            nodesExt=None,
            nodes=[
                {"hostname": "$HOST:8091", "ports": {"direct": 11210}, "couchApiBase": "http://$HOST:8092/b"},
                {"hostname": "[::1]:9000", "ports": {"direct": 12000}},
            ],
        )
        cluster = parse_cluster_map(text, "seed")
        self.assertEqual(cluster.nodes[0], NodeAddress("seed", 11210, None, 8091, None, 8092))
        self.assertEqual(cluster.nodes[1], NodeAddress("::1", 12000, None, 9000))

    def test_cluster_level(self):
        """Without a bucket there are nodes and no vbuckets."""
        cluster = parse_cluster_map(b'{"rev":1,"nodesExt":[{"services":{"kv":11210}}]}', "h")
        self.assertEqual((cluster.data_nodes, cluster.rows, cluster.nodes[0].host), (0, (), "h"))

    def test_revisions(self):
        """Epoch first, then revision; only a greater one supersedes."""
        maps = [
            parse_cluster_map(config(rev=rev, revEpoch=epoch), "h") for epoch, rev in ((0, 9), (1, 1), (1, 2))
        ]
        for index, cluster in enumerate(maps):
            self.assertTrue(cluster.supersedes(None))
            self.assertEqual([cluster.supersedes(other) for other in maps], [i < index for i in range(3)])

    def test_unusable(self):
        """An unusable map is a ProtocolError."""
        for text in (b"", b"[]", b"{}x", config(vBucketServerMap=None), config(vBucketServerMap={})):
            self.assertRaises(ProtocolError, parse_cluster_map, text, "h")
        bad_row = {"serverList": ["h:1"], "vBucketMap": [[7]]}
        self.assertRaises(ProtocolError, parse_cluster_map, config(vBucketServerMap=bad_row), "h")

    def test_stream(self):
        """Documents end with four newlines, wherever the chunks are cut."""
        self.assertEqual(split_stream(b"{1}\n\n\n\n{2}\n\n\n\n{3"), ([b"{1}", b"{2}"], b"{3"))


class AddressTests(SynchronousTestCase):
    """Connection strings and SDK 1.2's hosts."""

    def test_connection_strings(self):
        """Ports are the key-value service's, or with http the manager's."""
        parse = parse_connection_string
        self.assertEqual(
            parse("couchbase://a,b:12000").seeds, (Seed("a", 11210, 8091), Seed("b", 12000, None))
        )
        self.assertEqual(parse("couchbases://a").seeds, (Seed("a", 11207, 18091),))
        self.assertTrue(parse("couchbases://a").tls)
        self.assertEqual(parse("http://a:9000/b%20c?network=external").seeds, (Seed("a", None, 9000),))
        self.assertEqual(parse("http://a/b%20c").bucket, "b c")
        self.assertEqual(parse("couchbase://[::1]:11210?x=1").options, {"x": "1"})
        self.assertEqual(parse("couchbase://[::1]").seeds[0].host, "::1")

    def test_malformed(self):
        """Anything else is an InvalidError that quotes the input."""
        for text in ("", "ftp://a", "couchbase://", "couchbase://a:x", "couchbase://a:0", "couchbase://a,,b"):
            error = self.assertRaises(InvalidError, parse_connection_string, text)
            self.assertEqual(error.rc, exceptions.INVALID_HOST_FORMAT)
        for text in ("a:", "[::1", "[::1]:", "a b", "[::1]x"):
            self.assertRaises(InvalidError, split_host_port, text)

    def test_hosts_of_sdk_1_2(self):
        """Lists, pairs, ';' lists; 'name:port' in one string is malformed."""
        self.assertEqual(seeds_from_hosts("h", 8091), (Seed("h", 11210, 8091),))
        self.assertEqual(
            seeds_from_hosts("http://a/x;b", 9000), (Seed("a", 11210, 8091), Seed("b", None, 9000))
        )
        self.assertEqual(
            seeds_from_hosts(["a", ("b", 9001)], 9000), (Seed("a", None, 9000), Seed("b", None, 9001))
        )
        for host, port in (("h:8091", 8091), ("", 8091), ("h", 0), ("h", "x"), ([], 1)):
            self.assertRaises(InvalidError, seeds_from_hosts, host, port)


class StatusTests(SynchronousTestCase):
    """The table of statuses, by operation."""

    def test_every_known_failure_has_a_family(self):
        """No known status outside the sub-document and range families falls through to ERROR."""
        for status in Status:
            if status in RC_OF_STATUS or status >= 0xC0 or 0xA5 <= status <= 0xA8:
                continue
            self.assertIn(
                status,
                (
                    Status.ROLLBACK,
                    Status.UNKNOWN_COLLECTION,
                    Status.CANNOT_APPLY_MANIFEST,
                    Status.UNKNOWN_SCOPE,
                ),
            )

    def test_meaning_depends_on_the_operation(self):
        """Locked is a temporary failure to lock, a failed precondition to set."""
        self.assertEqual(result_code("lock", Status.LOCKED), exceptions.ETMPFAIL)
        self.assertEqual(result_code("set", Status.LOCKED), exceptions.KEY_EEXISTS)
        self.assertEqual(result_code("add", Status.NOT_STORED), exceptions.KEY_EEXISTS)

    def test_what_is_retried(self):
        """Temporary failures are, locked documents never, not even on servers without XERROR."""
        self.assertIs(action_for("set", Status.ETMPFAIL, True), Action.RETRY)
        self.assertIs(action_for("set", Status.NOT_MY_VBUCKET, True), Action.REMAP)
        self.assertIs(action_for("lock", Status.LOCKED, True), Action.SURFACE)
        self.assertIs(action_for("incr", Status.ETMPFAIL, True), Action.RETRY)
        self.assertIs(action_for("incr", Status.ETMPFAIL, False), Action.SURFACE)
        for xerror in (True, False):
            self.assertIs(action_for("lock", Status.ETMPFAIL, xerror), Action.SURFACE)
            self.assertIs(action_for("unlock", Status.ETMPFAIL, xerror), Action.SURFACE)

    def test_every_operation_fails_with_its_key_and_status(self):
        """Each row of the table turns a refusal into an exception that carries what happened."""
        for operation in OPERATIONS:
            request = Request(operation, "k", b"k")
            body = b'{"error":{"context":"why","ref":"r"}}'
            error = self.assertRaises(
                KeyExistsError if operation.name != "unlock" else TemporaryFailError,
                complete,
                request,
                response(operation.opcode, Status.KEY_EEXISTS, value=body),
            )
            self.assertEqual((error.key, error.status, error.context), ("k", 2, "why"))
            self.assertEqual(error.operation, operation.name)
            self.assertEqual(error.result.rc, error.rc)


class DurabilityTests(SynchronousTestCase):
    """Polling until there are enough copies."""

    def setUp(self):
        nodes = [NodeAddress(f"n{i}", 1) for i in range(3)]
        self.map = ClusterMap(nodes=nodes, rows=[(0, 1, 2)], replicas=2, rev=1)
        self.now = 0.0

    def plan(self, persist_to, replicate_to, cas=7, **options):
        requirement = durability.check_requirement(self.map, persist_to, replicate_to)
        keywords = {"timeout": 5.0, "interval": 0.1}
        keywords.update(options)
        return durability.endure_plan(
            lambda: self.map, lambda: self.now, {b"k": cas}, requirement, **keywords
        )

    def answers(self, step, states):
        """Answer an Ask from server index -> (state, cas) or None."""
        self.assertIsInstance(step, Ask)
        frames = []
        for server, _, fields in step.questions:
            state = states.get(server)
            if state is None:
                frames.append(None)
            else:
                tail = state[0].to_bytes(1, "big") + state[1].to_bytes(8, "big")
                frames.append(response(0x92, value=fields["value"](b"") + tail))
        return frames

    def outcome(self, plan, states):
        with self.assertRaises(StopIteration) as done:
            plan.send(self.answers(next(plan), states))
        return done.exception.value[b"k"]

    def test_satisfied_at_once(self):
        """Enough nodes on the first round: no pause."""
        self.assertEqual(self.outcome(self.plan(2, 1), {0: (1, 7), 1: (1, 7), 2: (0, 7)}), exceptions.SUCCESS)

    def test_negative_means_all(self):
        """-1 means every node."""
        requirement = durability.check_requirement(self.map, -1, -1)
        self.assertEqual(requirement, (3, 2))

    def test_more_than_the_cluster_has(self):
        """An error before anything is asked."""
        error = self.assertRaises(ArgumentError, durability.check_requirement, self.map, 4, 0)
        self.assertEqual(error.rc, exceptions.DURABILITY_ETOOMANY)
        self.assertRaises(ArgumentError, durability.check_requirement, self.map, 0, 3)

    def test_waits_and_asks_again(self):
        """Not yet on disk: pause, then another round; a silent node does not spoil it."""
        plan = self.plan(1, 1)
        step = plan.send(self.answers(next(plan), {0: (0, 7), 1: (0, 7)}))
        self.assertEqual(step, Pause(0.1))
        step = plan.send(None)
        with self.assertRaises(StopIteration) as done:
            plan.send(self.answers(step, {0: (1, 7), 2: (0, 7)}))
        self.assertEqual(done.exception.value, {b"k": exceptions.SUCCESS})

    def test_time_runs_out(self):
        """The wait ends with a timeout, not with success."""
        plan = self.plan(1, 0)
        plan.send(self.answers(next(plan), {0: (0, 7)}))
        self.now = 5.0
        with self.assertRaises(StopIteration) as done:
            plan.send(self.answers(plan.send(None), {0: (0, 7)}))
        self.assertEqual(done.exception.value, {b"k": exceptions.ETIMEDOUT})

    def test_another_version(self):
        """A different CAS on the active node ends the wait."""
        self.assertEqual(self.outcome(self.plan(1, 0), {0: (1, 8)}), exceptions.KEY_EEXISTS)

    def test_missing(self):
        """Missing on the active node: not found, or (after a mutation) replaced by a removal."""
        self.assertEqual(self.outcome(self.plan(1, 0), {0: (0x80, 0)}), exceptions.KEY_ENOENT)
        self.assertEqual(
            self.outcome(self.plan(1, 0, after_mutation=True), {0: (0x80, 0)}), exceptions.KEY_EEXISTS
        )

    def test_removal(self):
        """Gone counts as persisted, logically deleted as replicated only."""
        gone, logically = (0x80, 0), (0x81, 0)
        self.assertEqual(
            self.outcome(self.plan(1, 1, check_removed=True), {0: gone, 1: logically}), exceptions.SUCCESS
        )
        plan = self.plan(1, 0, check_removed=True)
        self.assertIsInstance(plan.send(self.answers(next(plan), {0: logically})), Pause)

    @given(st.binary(max_size=60))
    def test_observe_answers_of_any_bytes(self, data):
        """Arbitrary answers parse or are a ProtocolError."""
        try:
            observation.parse_observe(data)
        except ProtocolError:
            pass
