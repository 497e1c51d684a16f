"""Stores as one operation: the same as in the general way, whatever the headers and the cluster say."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from couchbase import exceptions
from couchbase.protocol.constants import Status
from gateway.resources import documents, headers
from gateway.resources.headers import MutationHeaders
from gateway.resources.stores import form_of
from tests.gateway.resources.test_documents import ANSWERS
from tests.gateway.support import NOW, Site, error

DOCUMENTS = "/v1/buckets/b/documents/k", "/v1/buckets/b/scopes/s/collections/c/documents/k"
METHODS = (("PUT", ""), ("POST", ""), ("POST", "/append"), ("POST", "/prepend"))

_VALUES = {
    "If-Match": ("1234", '"fF"', "*", '"1", "2"', '"0"', "nonsense", 'W/"1234"'),
    "If-None-Match": ("*", "1234", '"other"', "nonsense,"),
    "Expires": ("1h", "2000h", "0", "", "soon", "Thu, 01 Jan 2099 00:00:00 GMT", "\xe9"),
    "X-CB-TTL": ("60", "0", "1800000000", "-1", "x"),
    "X-CB-Flags": ("7", "0", "4294967296"),
    "X-CB-DurabilityLevel": ("None", "Majority", "PersistToMajority", "majority"),
    "X-CB-PersistTo": ("0", "1", "9"),
    "X-CB-ReplicateTo": ("-1",),
    "X-CB-Timeout": ("2s", "0"),
    "X-CB-DurabilityTimeout": ("3s", "66s"),
    "Content-Encoding": ("identity", "snappy", "gzip"),
    "Content-Type": ("application/json", "text/plain", "text/plain; charset=latin-1", "x"),
}
_HEADERS = st.lists(
    st.sampled_from([(name, value) for name, values in _VALUES.items() for value in values]), max_size=3
)
_EXISTS = error(exceptions.KEY_EEXISTS, status=Status.KEY_EEXISTS)
_ERRORS = (
    None,
    error(exceptions.KEY_ENOENT, status=Status.KEY_ENOENT),
    _EXISTS,
    error(exceptions.NOT_STORED, status=Status.NOT_STORED),
    error(exceptions.ETMPFAIL, status=Status.LOCKED),
    error(exceptions.ETIMEDOUT, ambiguous=True),
)


class SameTests(SynchronousTestCase):
    """Requests to two gateways, of which one knows the general way only."""

    def outcome(self, error: Any, asked: tuple[Any, ...], *, general: bool) -> Any:
        """Return the answer to a request, what was asked of the cluster, and what was counted."""
        (method, suffix), path, pairs, body = asked
        answers = dict(ANSWERS)
        if error is not None:
            answers |= dict.fromkeys(("set", "add", "replace", "append", "prepend"), error)
            if error.rc in (exceptions.KEY_ENOENT, exceptions.NOT_STORED):
                # No server says so of a document that is to be created.
                answers["add"] = ANSWERS["add"]
        site = Site(answers)
        counted: list[Any] = []
        site.gateway.count_operation = lambda *counts: counted.append(counts)  # type: ignore[method-assign]
        if general:
            # What is remembered has the forms that were found.
            headers._of_type.clear()
            headers._known.clear()
            self.patch(documents, "form_of", lambda *_: None)
        data = [(name, value) for name, value in pairs]
        reply = site.request(method, path + suffix, body, data)
        told: Any = reply.body
        if reply.status >= 400:
            told = {name: value for name, value in reply.json().items() if name != "requestId"}
        calls = [(name, given, sorted(options.items())) for name, given, options in site.calls]
        return reply.status, told, reply.header("ETag"), calls, counted

    @settings(deadline=None, max_examples=80)
    @given(
        st.sampled_from(_ERRORS),
        st.tuples(
            st.sampled_from(METHODS),
            st.sampled_from(DOCUMENTS),
            _HEADERS,
            st.sampled_from((b"{}", b"", b"text")),
        ),
    )
    def test_any_headers(self, error: Any, asked: tuple[Any, ...]) -> None:
        """The same answer, the same operations with the same arguments, the same counts."""
        self.compare(error, asked)

    def test_each_header(self) -> None:
        """Each header alone, if the store succeeds and if it fails."""
        for name, values in _VALUES.items():
            for value in values:
                for failure in (None, _EXISTS):
                    self.compare(failure, (METHODS[0], DOCUMENTS[0], [(name, value)], b"{}"))

    def compare(self, error: Any, asked: tuple[Any, ...]) -> None:
        """Compare the outcomes of a request in both ways."""
        short = self.outcome(error, asked, general=False)
        with_forms = documents.form_of
        try:
            self.assertEqual(short, self.outcome(error, asked, general=True), asked)
        finally:
            documents.form_of = with_forms

    def test_what_is_remembered(self) -> None:
        """A form is found once, unless it depends on the time of the request."""
        for expires, lasts in (("1h", True), ("Thu, 01 Jan 2099 00:00:00 GMT", True), ("2000h", False)):
            given = MutationHeaders()
            given.expires = expires
            first = form_of("set", given, NOW)
            assert first is not None
            later = form_of("set", given, NOW + 100)
            assert later is not None
            self.assertEqual((later is first, "set" in given.forms), (lasts, lasts))
            self.assertEqual(later.options["ttl"] - first.options["ttl"], 0 if lasts else 100)

    def test_versions(self) -> None:
        """What is found for one version is used for the next one, with its own CAS; other conditions share
        nothing."""
        shared = MutationHeaders()
        forms = []
        for match, cas in ((b"1f", 0x1F), (b'"ff"', 0xFF), (b"2a", 0x2A)):
            given = shared.of_version(match)
            self.assertEqual((given.if_match, given.cas), (match, cas))
            forms.append(form_of("set", given, NOW))
        assert forms[0] is not None
        self.assertEqual([form is forms[0] for form in forms], [True] * 3)
        self.assertEqual((forms[0].method, forms[0].takes_cas), ("replace", True))
        self.assertNotIn("cas", forms[0].options)
        for match in (b'"1", "2"', b'"0"', b"nonsense", b'W/"1f"', b""):
            given = shared.of_version(match)
            self.assertIsNone(given.cas)
            self.assertEqual(given.forms, {})
        shared = MutationHeaders()
        shared.if_none_match = b"2a"
        self.assertIsNone(form_of("set", shared.of_version(b"2a"), NOW))
        found = form_of("set", shared.of_version(b"1f"), NOW)
        assert found is not None
        self.assertEqual((found.options["cas"], shared.forms), (0x1F, {}))

    def test_versions_of_requests(self) -> None:
        """Each request sends its own version, beside whatever else it says, and whatever came before."""
        for more in ({}, {"Expires": "1h"}, {"X-CB-DurabilityLevel": "Majority", "X-CB-Flags": "7"}):
            site = Site(dict(ANSWERS))
            for match in ("1f", "ff", '"2a"', "*", "2b"):
                site.request("PUT", DOCUMENTS[0], b"{}", {"If-Match": match, **more})
            sent = [options["cas"] for name, _, options in site.calls if name == "replace"]
            self.assertEqual(sent, [0x1F, 0xFF, 0x2A, 0, 0x2B], more)

    def test_one_operation(self) -> None:
        """Conditions that a single operation can test, and those that need the version first."""
        for match, none_match, expected in (
            (b"*", None, ("replace", 0)),
            (b"1f", None, ("replace", 0x1F)),
            (None, b"*", ("add", None)),
            (None, b"1f", None),
            (b"1f", b"*", None),
            (b"1f, 2f", None, None),
            (b"nonsense", None, None),
        ):
            given = MutationHeaders()
            given.if_match, given.if_none_match = match, none_match
            form = form_of("set", given, NOW)
            found = None if form is None else (form.method, form.options.get("cas"))
            self.assertEqual(found, expected)
