"""``lookup`` and ``mutate``: the calls of the driver, and the whole path over sockets to a node."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import SynchronousTestCase

from couchbase import exceptions
from couchbase.protocol.constants import Opcode, Status
from couchbase.protocol.pathresults import PathResult
from couchbase.protocol.subdocument import Spec
from couchbase.subdocument import StoreSemantics
from tests.gateway.resources.test_documents import ANSWERS, SHORT, path_results
from tests.gateway.support import Reply, Site, error, passthrough
from tests.gateway.test_behaviour import JSON, D, GatewayTestCase

RESOURCE = "/buckets/b/scopes/_default/collections/_default/documents/k"


def body(*operations: dict[str, Any], **members: Any) -> bytes:
    """Return a body."""
    return json.dumps({"operations": operations, **members}).encode()


class AskedTests(SynchronousTestCase):
    """Calls of the driver, and requests that are refused before."""

    def setUp(self) -> None:
        self.site = Site(dict(ANSWERS))

    def ask(self, what: str, content: bytes, **headers: str) -> Reply:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.site.request("POST", f"{SHORT}/{what}", content, named)

    def refused(self, what: str, content: bytes, words: str, **headers: str) -> None:
        """It is 400, names the place, and asks the cluster nothing."""
        before = len(self.site.calls)
        reply = self.ask(what, content, **headers)
        self.assertEqual((reply.status, reply.json()["code"]), (400, "InvalidArgument"), reply.body)
        self.assertEqual(reply.json()["resource"], "")
        self.assertIn(words, reply.json()["message"])
        self.assertEqual(len(self.site.calls), before)

    def asked(self) -> tuple[list[Spec], dict[str, Any]]:
        """Return the specs and options of the last call."""
        _, (key, specs), options = self.site.calls[-1]
        self.assertEqual(key, b"k")
        return specs, options

    def test_lookup(self) -> None:
        """Each operation."""
        names = {
            "Get": Opcode.SUBDOC_GET,
            "Exists": Opcode.SUBDOC_EXISTS,
            "GetCount": Opcode.SUBDOC_GET_COUNT,
        }
        operations = [{"operation": name, "path": "a.b"} for name in names]
        self.assertEqual(self.ask("lookup", body(*operations)).status, 200)
        specs, options = self.asked()
        self.assertEqual(specs, [Spec(opcode, 0, b"a.b") for opcode in names.values()])
        self.assertEqual(options, {"access_deleted": False})
        attribute = {"operation": "Get", "path": "$document", "xattr": True}
        self.ask("lookup", body(attribute, {"operation": "GetCount", "path": ""}, accessDeleted=True))
        self.assertEqual(self.asked()[0], [Spec(0xC5, 4, b"$document"), Spec(0xD2, 0, b"")])
        self.assertEqual(self.asked()[1], {"access_deleted": True})

    def test_mutate(self) -> None:
        """Each operation, with its value as written."""
        for name, opcode in (
            *(("DictAdd", 0xC7), ("DictSet", 0xC8), ("Replace", 0xCA), ("ArrayPushLast", 0xCB)),
            *(("ArrayPushFirst", 0xCC), ("ArrayInsert", 0xCD), ("ArrayAddUnique", 0xCE), ("Counter", 0xCF)),
        ):
            content = b'{"operations":[{"operation":"%b","path":"a","value":1.0}]}' % name.encode()
            self.assertEqual(self.ask("mutate", content).status, 200)
            self.assertEqual(self.asked()[0], [Spec(opcode, 0, b"a", b"1.0")])
        self.ask("mutate", body({"operation": "Delete", "path": "a"}))
        self.assertEqual(self.asked()[0], [Spec(0xC9, 0, b"a")])
        _, options = self.asked()
        self.assertEqual(
            options,
            {
                "cas": 0,
                "ttl": 0,
                "preserve_expiry": False,
                "store_semantics": StoreSemantics.REPLACE,
                "access_deleted": False,
            },
        )

    def test_short_way(self) -> None:
        """A usual mutation of one path comes to the same by the short way as by the long one."""
        heads = (b'"operation":"%b","path":"%b"', b'"operation": "%b", "path": "%b"')
        values = (
            b"",
            b',"value":1',
            b', "value":null',
            b',"value":{"a":[1]}',
            b',"value":1},{"operation":"x"',
        )
        names = (
            b"DictSet",
            b"DictAdd",
            b"Replace",
            b"Delete",
            b"Counter",
            b"ArrayPushLast",
            b"Get",
            b"dictset",
        )
        seen = 0
        for head in heads:
            for name in names:
                for path in (b"a", b"a.b[0]", b"", b"\u0061", "\u00e9".encode(), b"x" * 1025, b"\xff"):
                    for value in values:
                        outcomes = []
                        for end in (b"]}", b'],"accessDeleted":false}'):
                            before = len(self.site.calls)
                            content = b'{"operations":[{' + head % (name, path) + value + b"}" + end
                            reply = self.ask("mutate", content)
                            kept = reply.json() if reply.status == 200 else reply.json()["message"]
                            etag = reply.header("ETag"), reply.header("X-CB-MutationToken")
                            outcomes.append((reply.status, kept, etag, self.site.calls[before:]))
                        self.assertEqual(outcomes[0], outcomes[1], (head, name, path, value))
                        seen += outcomes[0][0] == 200
        self.assertGreater(seen, 60)

    def test_short_way_with_headers(self) -> None:
        """The same for several paths with any headers of a mutation, twice because some are cached."""
        change = {"operation": "DictSet", "path": "a", "value": {"n": 1.50}}
        other = {"operation": "Counter", "path": "n", "value": 1}
        headers: tuple[dict[str, str], ...] = (
            *({}, {"Expires": "90s"}, {"X_CB_TTL": "60"}, {"X_CB_TTL": "x"}, {"X_CB_Timeout": "2s"}),
            *({"If_Match": "ff"}, {"If_Match": "*"}, {"If_Match": "1234,5678"}, {"If_None_Match": "1234"}),
            *(
                {"If_Match": "ff", "Expires": "2h"},
                {"If_Match": "ff", "If_None_Match": "ff"},
                {"If_Match": ","},
            ),
            *({"X_CB_DurabilityLevel": "Majority"}, {"X_CB_DurabilityLevel": "x"}, {"X_CB_PersistTo": "1"}),
            *({"X_CB_DurabilityLevel": "Majority", "If_Match": "ff"}, {"Content_Encoding": "snappy"}),
            *({"Content_Type": "application/json; charset=latin1"}, {"Content_Type": "image/png"}),
        )
        semantics: tuple[Any, ...] = (None, "Replace", "Upsert", "Insert", "upsert", 1, [])
        removal = {"operation": "Delete", "path": "x"}
        for given, semantic, operations in product(
            headers * 2, semantics, ((change, other), (change, removal))
        ):
            outcomes = []
            for more in ({}, {"accessDeleted": False}):
                before = len(self.site.calls)
                content = body(
                    *operations, **({} if semantic is None else {"storeSemantic": semantic}), **more
                )
                reply = self.ask("mutate", content, **given)
                kept = reply.json() if reply.status == 200 else reply.json()["message"]
                etag = reply.header("ETag"), reply.header("X-CB-MutationToken")
                outcomes.append((reply.status, kept, etag, self.site.calls[before:]))
            self.assertEqual(outcomes[0], outcomes[1], (given, semantic))
        reply = self.site.request("POST", f"{SHORT}/mutate?a=1", body(change))
        self.assertEqual((reply.status, reply.json()["code"]), (400, "InvalidArgument"))

    def test_keys(self) -> None:
        """Routes are remembered by what is around the key, whatever the key is."""
        one = body({"operation": "Get", "path": "a"})
        for key, expected in (
            *(
                ("k", b"k"),
                ("k2", b"k2"),
                ("a%2Fb", b"a/b"),
                ("lookup", b"lookup"),
                ("%25", b"%"),
                ("k", b"k"),
            ),
        ):
            for path in (SHORT, SHORT.replace("documents", "scopes/_default/collections/_default/documents")):
                reply = self.site.request("POST", f"{path[:-1]}{key}/lookup", one)
                self.assertEqual(reply.status, 200)
                self.assertEqual(self.site.calls[-1][1][0], expected)
        for bad in ("%", "%zz", "%FF"):
            reply = self.site.request("POST", f"{SHORT[:-1]}{bad}/lookup", one)
            self.assertEqual(reply.status, 400)
        self.assertEqual(self.site.request("POST", f"{SHORT[:-1]}/lookup", one).status, 404)
        self.assertEqual(self.site.request("PUT", f"{SHORT}/lookup", one).status, 405)

    def test_flags(self) -> None:
        """Attributes, parents, macros, several values, null."""
        for members, spec in (
            ({"createParents": True, "value": 1}, Spec(0xC8, 1, b"a", b"1")),
            ({"xattr": True, "value": 1}, Spec(0xC8, 4, b"a", b"1")),
            (
                {"expandMacros": True, "value": "${Mutation.CAS}"},
                Spec(0xC8, 0x14, b"a", b'"${Mutation.CAS}"'),
            ),
            ({"values": [None]}, Spec(0xC8, 0, b"a", b"null")),
            ({"operation": "ArrayPushLast", "values": [1, [2], None]}, Spec(0xCB, 0, b"a", b"1,[2],null")),
            ({"operation": "ArrayPushFirst", "path": "", "value": 1}, Spec(0xCC, 0, b"", b"1")),
        ):
            content = body({"operation": "DictSet", "path": "a", **members})
            reply = self.ask("mutate", content.replace(b", ", b","))
            self.assertEqual(reply.status, 200, reply.body)
            self.assertEqual(self.asked()[0], [spec])

    def test_options(self) -> None:
        """Expiry, version, durability, semantics."""
        change = {"operation": "DictSet", "path": "a", "value": 1}
        for headers, members, expected in (
            ({"Expires": "90s"}, {}, {"ttl": 90}),
            ({"X_CB_TTL": "60"}, {"storeSemantic": "Upsert", "preserveExpiry": True}, {"ttl": 60}),
            ({"If_Match": "ff"}, {}, {"cas": 255}),
            ({"If_Match": 'W/"ff-gzip"'}, {}, {"cas": 255}),
            ({"If_Match": "*"}, {}, {"cas": 0}),
            ({}, {"storeSemantic": "Insert"}, {"store_semantics": StoreSemantics.INSERT}),
            ({}, {"storeSemantic": "Upsert"}, {"store_semantics": StoreSemantics.UPSERT}),
            ({}, {"preserveExpiry": True}, {"preserve_expiry": True}),
            ({"X_CB_DurabilityLevel": "PersistToMajority"}, {}, {"durability_level": 3}),
            ({"X_CB_PersistTo": "1"}, {}, {"persist_to": 1, "replicate_to": 0}),
        ):
            reply = self.ask("mutate", body(change, **members), **headers)
            self.assertEqual(reply.status, 200, (headers, members, reply.body))
            self.assertLessEqual(expected.items(), self.asked()[1].items())
        reply = self.ask("mutate", body(change), If_Match="1234,5678")
        self.assertEqual([call[0] for call in self.site.calls[-2:]], ["lookup_in", "mutate_in"])
        self.assertEqual(self.asked()[1]["cas"], 0x1234)
        self.assertEqual(self.ask("mutate", body(change), If_Match="5678,9").json()["code"], "CasMismatch")
        self.assertEqual(self.ask("mutate", body(change), If_None_Match="1234").status, 412)

    def test_refused(self) -> None:
        """Wrong operations are named by their index, before the cluster is asked anything."""
        get, change = {"operation": "Get", "path": "a"}, {"operation": "DictSet", "path": "a", "value": 1}
        for what, operations, words in (
            ("lookup", [], "operations: expected a list of 1 to 16"),
            ("lookup", [get] * 17, "there are 17; at most 16"),
            (
                "lookup",
                [get, {"path": "a"}],
                "operations[1].operation: expected one of Get, Exists, ",
            ),
            ("lookup", [{"operation": "get", "path": "a"}], "operations[0].operation"),
            ("lookup", [change], "operations[0].operation"),
            ("lookup", [{"operation": 1, "path": "a"}], "operations[0].operation: expected a string"),
            ("lookup", [{"operation": "Get", "path": 1}], "operations[0].path: expected a string"),
            ("lookup", [{"operation": "Get", "path": ""}], "operations[0].path: the path cannot be empty"),
            ("lookup", [{"operation": "Get"}], "the path cannot be empty"),
            ("lookup", [{"operation": "GetCount", "path": "", "xattr": True}], "the path cannot be empty"),
            ("lookup", [{**get, "path": "x" * 1025}], "1025 bytes"),
            ("lookup", [{**get, "path": "\ud800"}], "surrogate"),
            ("lookup", [{**get, "value": 1}], "operations[0]: Get takes no value"),
            ("lookup", [{**get, "xattr": 1}], "operations[0].xattr: expected true or false"),
            ("lookup", [{**get, "createParents": True}], "createParents"),
            ("lookup", [{**get, "x": 1}], "operations[0]: unknown member 'x'"),
            ("mutate", [], "operations: expected a list of 1 to 16"),
            ("mutate", [get], "operations[0].operation"),
            ("mutate", [{"operation": "DictSet", "path": "a"}], "operations[0].value"),
            ("mutate", [{**change, "value": None}], "operations[0].value: the value cannot be empty"),
            ("mutate", [{**change, "path": ""}], "the path cannot be empty"),
            ("mutate", [{"operation": "Delete", "path": "a", "value": 1}], "Delete takes no value"),
            ("mutate", [{"operation": "Delete", "path": ""}], "the path cannot be empty"),
            ("mutate", [{**change, "values": [1]}], "exclude each other"),
            ("mutate", [{"operation": "DictSet", "path": "a", "values": [1, 2]}], "expected one element"),
            ("mutate", [{"operation": "ArrayPushLast", "path": "a", "values": []}], "at least one element"),
            ("mutate", [{"operation": "Replace", "path": "a", "value": 1, "createParents": True}], "creates"),
            ("mutate", [{"operation": "Counter", "path": "a", "value": 1, "expandMacros": True}], "macro"),
        ):
            self.refused(what, body(*operations), words)
        for members, headers, words in (
            ({"storeSemantic": "upsert"}, {}, "storeSemantic: expected one of Replace, Upsert, Insert"),
            ({"storeSemantic": 1}, {}, "storeSemantic"),
            ({"storeSemantic": "Insert"}, {"If_Match": "1"}, "If-Match"),
            ({"storeSemantic": "Upsert"}, {"If_None_Match": "*"}, "If-Match"),
            ({"storeSemantic": "Insert", "preserveExpiry": True}, {}, "preserveExpiry"),
            ({"preserveExpiry": True}, {"Expires": "5s"}, "preserveExpiry"),
            ({"unknown": 1}, {}, "unknown member 'unknown'"),
            ({}, {"Expires": "5"}, "Expires"),
            ({}, {"X_CB_Flags": "5"}, "X-CB-Flags"),
            ({}, {"Content_Type": "application/json; charset=latin-1"}, "charset"),
        ):
            self.refused("mutate", body(change, **members), words, **headers)
        for name in ("Delete", "Replace", "ArrayInsert"):
            needs = {"operation": name, "path": "a", **({} if name == "Delete" else {"value": 1})}
            self.refused("mutate", body(change, needs, storeSemantic="Upsert"), f"operations[1]: {name}")

    def test_order_of_checks(self) -> None:
        """The body's JSON comes before credentials, names of operations after them."""
        self.site = Site(dict(ANSWERS), authorizer=passthrough())
        for what in ("lookup", "mutate"):
            self.assertEqual(self.ask(what, b"{").status, 400)
            self.assertEqual(self.ask(what, b'{"operations":[{"operation":1}]}').status, 400)
            self.assertEqual(self.ask(what, body({"operation": "x"})).status, 401)
            self.assertEqual(self.ask(what, b"{}").status, 401)

    def test_answers(self) -> None:
        """Values as stored; errors by path with the Data API's words."""
        statuses = {
            Status.SUBDOC_PATH_ENOENT: "PathNotFound",
            Status.SUBDOC_PATH_MISMATCH: "PathMismatch",
            Status.SUBDOC_PATH_EINVAL: "InvalidArgument",
            Status.SUBDOC_PATH_E2BIG: "InvalidArgument",
            Status.SUBDOC_XATTR_UNKNOWN_VATTR: "UnknownVattr",
            Status.EACCESS: "Internal",
        }
        self.site.answers["lookup_in"] = path_results(
            PathResult(b"a", False, 0, 0, b"1.50"),
            PathResult(b"a", False, 0, 0, b"null"),
            PathResult(b"a", True, 0, 0, b""),
            PathResult(b"a", True, Status.SUBDOC_PATH_ENOENT, 0x3F, b""),
            *(PathResult(b"a", False, status, 1, b"") for status in statuses),
            PathResult(b"a", True, Status.SUBDOC_PATH_MISMATCH, 0x40, b""),
        )
        reply = self.ask("lookup", body({"operation": "Get", "path": "a"}))
        self.assertTrue(
            reply.body.startswith(b'[{"value":1.50},{"value":null},{"value":true},{"value":false},')
        )
        errors = [entry["error"] for entry in reply.json()[4:]]
        self.assertEqual([one["error"] for one in errors], [*statuses.values(), "PathMismatch"])
        self.assertEqual(errors[0]["message"], "The requested path was not found in the document.")
        self.assertEqual(
            (reply.header("ETag"), reply.header("Content-Type")), ("00001234", "application/json")
        )
        for status, code in (
            (Status.SUBDOC_DOC_NOT_JSON, "DocumentNotJson"),
            (Status.SUBDOC_DOC_E2DEEP, "DocumentTooDeep"),
        ):
            self.site.answers["lookup_in"] = path_results(PathResult(b"a", True, status, 1, b""))
            refused = self.ask("lookup", body({"operation": "Exists", "path": "a"}))
            self.assertEqual((refused.status, refused.json()["code"]), (400, code))
            self.assertEqual(refused.json()["resource"], RESOURCE)

    def test_failures(self) -> None:
        """Statuses of the cluster, with resources."""
        change = body({"operation": "DictSet", "path": "a.b", "value": 1})
        insert = body({"operation": "DictSet", "path": "a.b", "value": 1}, storeSemantic="Insert")
        of_path = RESOURCE + "/content/{a.b}"
        for content, rc, status, expected in (
            (change, exceptions.SUBDOC_PATH_ENOENT, 0xC0, (400, "PathNotFound", of_path)),
            (change, exceptions.SUBDOC_PATH_EEXISTS, 0xC9, (409, "PathExists", of_path)),
            (change, exceptions.SUBDOC_PATH_MISMATCH, 0xC1, (400, "PathMismatch", of_path)),
            (change, exceptions.SUBDOC_PATH_EINVAL, 0xC2, (400, "InvalidArgument", "")),
            (change, exceptions.SUBDOC_PATH_E2BIG, 0xC3, (400, "InvalidArgument", "")),
            (change, exceptions.SUBDOC_DOC_E2DEEP, 0xC4, (400, "DocumentTooDeep", RESOURCE)),
            (change, exceptions.SUBDOC_DOC_NOTJSON, 0xC6, (400, "DocumentNotJson", RESOURCE)),
            (change, exceptions.SUBDOC_VALUE_CANTINSERT, 0xC5, (400, "InvalidArgument", "")),
            (change, exceptions.SUBDOC_BAD_DELTA, 0xC8, (400, "InvalidArgument", "")),
            (change, exceptions.KEY_ENOENT, 0x01, (404, "DocumentNotFound", RESOURCE)),
            (change, exceptions.KEY_EEXISTS, 0x09, (409, "DocumentLocked", RESOURCE)),
            (change, exceptions.E2BIG, 0x03, (400, "ValueTooLarge", RESOURCE)),
            (insert, exceptions.E2BIG, 0x03, (400, "InvalidArgument", "")),
            (insert, exceptions.KEY_EEXISTS, 0x02, (409, "DocumentExists", RESOURCE)),
            (insert, exceptions.KEY_EEXISTS, 0x05, (409, "DocumentExists", RESOURCE)),
            (change, exceptions.SUBDOC_INVALID_COMBO, 0xCB, (400, "InvalidArgument", "")),
            (change, exceptions.EINVAL, 0x04, (400, "InvalidArgument", "")),
            (change, exceptions.NOT_SUPPORTED, None, (501, "NotSupported", "")),
        ):
            located = {"path": "a.b", "path_index": 0} if (status or 0) >= 0xC0 and status != 0xCB else {}
            self.site.answers["mutate_in"] = error(rc, status=status, **located)
            told = self.ask("mutate", content)
            found = told.status, told.json()["code"], told.json()["resource"]
            self.assertEqual(found, expected, hex(status or 0))
            if located and expected[1] == "InvalidArgument":
                self.assertIn("operations[0]: ", told.json()["message"])
        self.site.answers["mutate_in"] = error(exceptions.KEY_EEXISTS, status=2)
        self.assertEqual(self.ask("mutate", change, If_Match="12").json()["code"], "CasMismatch")

    def test_alpha(self) -> None:
        """Every caller may ask whether the alpha paths exist."""
        reply = Site(dict(ANSWERS), authorizer=passthrough()).request("GET", "/v1.alpha/enabled")
        self.assertEqual((reply.status, reply.body), (200, b""))


class NodeTests(GatewayTestCase):
    """Over sockets, on a real node."""

    @inlineCallbacks
    def mutate(self, *operations: dict[str, Any], key: str = "k", **rest: Any) -> Any:
        members = {name: rest.pop(name) for name in list(rest) if name[0].islower()}
        found = yield self.ask("POST", f"{D}{key}/mutate", body(*operations, **members), **rest)
        return found

    @inlineCallbacks
    def test_life_of_paths(self) -> Any:
        """Change and read; numbers keep their text; the version decides."""
        created = yield self.mutate(
            {"operation": "DictSet", "path": "a.b", "value": 1},
            storeSemantic="Insert",
            Expires="1h",
        )
        self.assertEqual((created.status, created.json()), (200, [{"value": None}]))
        self.assertRegex(created.header("X-CB-MutationToken"), r"^default:\d+:[0-9a-f]{8,}:\d+$")
        again = yield self.mutate({"operation": "DictSet", "path": "a", "value": 1}, storeSemantic="Insert")
        self.assertEqual(again.code(), (409, "DocumentExists"))
        document = yield self.ask("GET", D + "k")
        self.assertEqual(
            (document.json(), document.header("ETag")), ({"a": {"b": 1}}, created.header("ETag"))
        )
        self.assertIsNotNone(document.header("Expires"))
        raw = (
            b'{"operations":[{"operation":"DictSet","path":"n","value":1.50},'
            b'{"operation":"Counter","path":"c","value":-5},{"operation":"ArrayPushLast","path":"l",'
            b'"values":[1,null,[2]],"createParents":true}],"preserveExpiry":true}'
        )
        changed = yield self.ask("POST", D + "k/mutate", raw, If_Match=f'"{created.header("ETag")}"', **JSON)
        self.assertEqual(changed.json(), [{"value": None}, {"value": -5}, {"value": None}])
        stale = yield self.mutate({"operation": "Delete", "path": "n"}, If_Match=created.header("ETag"))
        self.assertEqual(stale.code(), (409, "CasMismatch"))
        kept = yield self.ask("GET", D + "k")
        self.assertEqual(kept.header("Expires"), document.header("Expires"))
        looked = yield self.ask(
            "POST",
            D + "k/lookup",
            body(
                {"operation": "Get", "path": "n"},
                {"operation": "GetCount", "path": "l"},
                {"operation": "Exists", "path": "x"},
                {"operation": "Get", "path": "a.b.c"},
                {"operation": "Get", "path": "l["},
                {"operation": "Get", "path": "l[1]"},
            ),
        )
        self.assertEqual(looked.header("ETag"), changed.header("ETag"))
        self.assertTrue(looked.body.startswith(b'[{"value":1.50},{"value":3},{"value":false},'))
        errors = [entry.get("error", {}).get("error") for entry in looked.json()]
        self.assertEqual(errors, [None, None, None, "PathMismatch", "InvalidArgument", None])
        missing = yield self.ask("POST", D + "none/lookup", body({"operation": "Get", "path": "n"}))
        self.assertEqual(missing.code(), (404, "DocumentNotFound"))

    @inlineCallbacks
    def test_failures(self) -> Any:
        """Nothing is changed; the resource names the path."""
        yield self.ask("PUT", D + "k", b'{"a":[1],"n":"x"}', **JSON)
        before = yield self.ask("GET", D + "k")
        for operation, expected in (
            ({"operation": "Replace", "path": "x", "value": 1}, (400, "PathNotFound")),
            ({"operation": "Delete", "path": "a[5]"}, (400, "PathNotFound")),
            ({"operation": "DictAdd", "path": "a", "value": 1}, (409, "PathExists")),
            ({"operation": "ArrayAddUnique", "path": "a", "value": 1}, (409, "PathExists")),
            ({"operation": "Counter", "path": "n", "value": 1}, (400, "PathMismatch")),
            ({"operation": "Counter", "path": "c", "value": 0}, (400, "InvalidArgument")),
            ({"operation": "Counter", "path": "c", "value": 1.5}, (400, "InvalidArgument")),
            ({"operation": "ArrayAddUnique", "path": "a", "value": []}, (400, "InvalidArgument")),
            ({"operation": "DictSet", "path": "a..b", "value": 1}, (400, "InvalidArgument")),
        ):
            refused = yield self.mutate({"operation": "DictSet", "path": "new", "value": 1}, operation)
            self.assertEqual(refused.code(), expected, operation)
            if expected[1].startswith("Path"):
                self.assertTrue(refused.json()["resource"].endswith(f"/content/{{{operation['path']}}}"))
            else:
                self.assertIn("operations[1]", refused.json()["message"])
        after = yield self.ask("GET", D + "k")
        self.assertEqual((after.body, after.header("ETag")), (before.body, before.header("ETag")))
        yield self.ask("PUT", D + "bytes", b"\x00")
        for what, operation in (("lookup", "Exists"), ("mutate", "Delete")):
            refused = yield self.ask("POST", f"{D}bytes/{what}", body({"operation": operation, "path": "a"}))
            self.assertEqual(refused.code(), (400, "DocumentNotJson"))

    @inlineCallbacks
    def test_attributes(self) -> Any:
        """Beside the document, seen on demand; without Expires a mutation removes the expiry."""
        yield self.ask("PUT", D + "k", b'{"n":1}', Expires="1h", **JSON)
        changed = yield self.mutate(
            {"operation": "Counter", "path": "n", "value": 4},
            {"operation": "DictSet", "path": "a.by", "value": "ada", "xattr": True, "createParents": True},
            {"operation": "DictSet", "path": "a.cas", "value": "${Mutation.CAS}", "expandMacros": True},
        )
        self.assertEqual(changed.json(), [{"value": 5}, {"value": None}, {"value": None}])
        found = yield self.ask(
            "POST",
            D + "k/lookup",
            body(
                {"operation": "Get", "path": "n"},
                {"operation": "Get", "path": "a", "xattr": True},
                {"operation": "Get", "path": "$document.exptime", "xattr": True},
                {"operation": "Get", "path": "$nothing", "xattr": True},
            ),
        )
        number, attribute, expiry, unknown = found.json()
        self.assertEqual((number, attribute["value"]["by"], expiry), ({"value": 5}, "ada", {"value": 0}))
        cas = int(changed.header("ETag"), 16).to_bytes(8, "little").hex()
        self.assertEqual(attribute["value"]["cas"], f"0x{cas}")
        self.assertEqual(unknown["error"]["error"], "UnknownVattr")
        document = yield self.ask("GET", D + "k")
        self.assertEqual(document.json(), {"n": 5})

    @inlineCallbacks
    def test_large(self) -> Any:
        """A body beyond what is parsed at once: the same, in steps."""
        text = "x" * 600_000
        changed = yield self.mutate(
            {"operation": "DictSet", "path": "t", "value": text},
            {"operation": "DictSet", "path": "u", "value": {"deep": [text]}},
            storeSemantic="Upsert",
        )
        self.assertEqual(changed.status, 200)
        found = yield self.ask("POST", D + "k/lookup", body({"operation": "Get", "path": "u.deep[0]"}))
        self.assertEqual(found.json(), [{"value": text}])
        refused = yield self.mutate({"operation": "DictSet", "path": "t", "value": text}, {"operation": "x"})
        self.assertEqual(refused.code(), (400, "InvalidArgument"))

    @inlineCallbacks
    def test_batch(self) -> Any:
        """The same as lines, in order with others, also long ones."""
        text = "y" * 600_000
        yield self.ask("PUT", D + "pretty", b'{"a": [1,\n 2]}', **JSON)
        lines = [
            {"op": "set", "key": "b", "value": {"n": 1}},
            {
                "op": "mutate_in",
                "key": "b",
                "operations": [{"operation": "Counter", "path": "n", "value": 2}],
            },
            {"op": "lookup_in", "key": "b", "operations": [{"operation": "Get", "path": "n"}]},
            {
                "op": "mutate_in",
                "key": "b",
                "operations": [{"operation": "DictSet", "path": "t", "value": text}],
            },
            {"op": "lookup_in", "key": "b", "operations": [{"operation": "Get", "path": "t"}]},
            {"op": "lookup_in", "key": "pretty", "operations": [{"operation": "Get", "path": "a"}]},
            {
                "op": "mutate_in",
                "key": "b",
                "operations": [{"operation": "Replace", "path": "x", "value": 1}],
            },
            {"op": "mutate_in", "key": "b"},
            {"op": "lookup_in", "key": "b", "operations": [], "cas": "1"},
            {"op": "lookup_in", "key": "b", "operations": "x"},
        ]
        batch = b"".join(json.dumps(one).encode() + b"\n" for one in lines)
        answered = yield self.ask("POST", "/v1/buckets/default/batch", batch)
        answers = [json.loads(line) for line in answered.body.splitlines()]
        self.assertEqual([one["status"] for one in answers], [200] * 6 + [400] * 4)
        results = [one.get("results") for one in answers]
        self.assertEqual(results[1:3], [[{"value": 3}], [{"value": 3}]])
        self.assertEqual(results[3:6], [[{"value": None}], [{"value": text}], [{"value": [1, 2]}]])
        self.assertEqual(answers[1]["cas"], answers[2]["cas"])
        codes = [one["error"]["code"] for one in answers[6:]]
        self.assertEqual(codes, ["PathNotFound", *["InvalidArgument"] * 3])
        self.assertIn("operations", answers[7]["error"]["message"])
