"""Couchbase's own Data API gateway on our node, and its answers beside those of our gateway.

It is built from its public sources, which need modules that Go's module proxy does not have, so
``STELLAR_GATEWAY`` has to name the program. Differences are deliberate; docs/rest-api.md has the larger ones.
"""

from __future__ import annotations

import re
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.judges.dataapi import CASES, JSON, Case, Step, get, post, put
from tests.judges.stellar import Gateway, Node, missing, start_ours, start_peer

DELIBERATE = {
    r"(PUT|POST) as application/json; charset=utf-8": "a parameter of the type does not lose it",
    r"(PUT|POST) with flags '0?1'": "1 is a format of SDK 1.2",
    r"(PUT|POST) that expires '-5s'|touch '-1s' .*": "a negative duration is refused",
    r"(PUT|POST) that expires '1ms'": "less than a second is rounded up, not down to an expired document",
    r"(PUT|POST) that expires 'Fri, .* \+0000'": "dates are those of HTTP",
    r"(PUT|POST) that expires 'Thu, 01 Jan 1970 .*'": "a past date expires at once, also this one",
    r".* if '(\*|\"1\"|1,2|W/\"1\")'": "entity tags of HTTP: quoted, several, weak, any",
    r"project .*": "parts are shown as stored; paths that repeat or are too long are no internal error",
    r"unknown parameter": "an unknown parameter is refused",
    r"(append|prepend) encoded": "an encoding is refused where it would be stored as it is",
    r"(in|de)crement .*(null|other|delta\":1|Delta).*": "unknown and repeated members are refused",
    r"(in|de)crement as (application/jsonx|APPLICATION/JSON)": "a type is compared as HTTP has it",
    r"(touch|lock|lookup|mutate) with .*(other|null|'value': 1).*": "the same, for other bodies",
    r"mutate (ArrayAddUnique|Counter) .*|mutate with .*Counter.*": "bad values are no internal error",
    r"(GET|PUT|DELETE) default/nothing/b@d": "a name that no collection can have is seen first",
    r"(GET|PUT|DELETE) a%2Fb/.*": "a percent-encoded slash is part of a name",
    r"(PATCH|TRACE|PUT|DELETE) of append|PATCH of a document|unknown path .*": "each error has a code",
    r"GET of a missing collection as stranger.*": "who may not read learns nothing of collections",
    r"preflight .*": "methods and headers that the dialect needs are allowed, see --cors-origin",
}
"""Names of cases whose answers differ -> why."""

_DURABLE = {**JSON, "X-CB-DurabilityLevel": "Majority"}
_CHANGE = {"operations": [{"operation": "DictSet", "path": "b", "value": 2}]}
LIFE: Case = [
    put(headers=_DURABLE),
    post("mutate", _CHANGE, _DURABLE),
    get(),
    post("lookup", {"operations": [{"operation": "Get", "path": "b"}]}),
    Step("DELETE", "D/K", {"If-Match": "*"}),
    Step("DELETE", "D/K", {"X-CB-DurabilityLevel": "Majority"}),
    get(),
]


class StellarTests(SynchronousTestCase):
    """Each answer of both gateways, which use one node; the peer asks the node about each caller (cbauth)."""

    skip = missing()

    def start(self, what: Any) -> Any:
        self.addCleanup(what.stop)
        return what

    def test_answers(self) -> None:
        """They are the same, except for the deliberate differences."""
        node = self.start(Node())
        peer: Gateway = self.start(start_peer(node))
        ours: Gateway = self.start(start_ours(node))
        different = {}
        for number, (name, case) in enumerate(CASES.items()):
            wanted = peer.answers_of(case, f"peer-{number}")
            found = ours.answers_of(case, f"ours-{number}")
            if wanted != found and not any(re.fullmatch(pattern, name) for pattern in DELIBERATE):
                different[name] = (wanted, found)
        self.assertEqual(different, {})

    def test_life_of_a_document(self) -> None:
        """On three nodes with copies, in both of the peer's modes."""
        node = self.start(Node(3))
        for options in ([], ["--single-user-auth"]):
            peer: Gateway = self.start(start_peer(node, *options))
            answers = peer.answers_of(LIFE, "life")
            self.assertEqual([each["status"] for each in answers], [200, 200, 200, 200, 400, 200, 404])
            self.assertEqual(answers[2]["body"], b'{"a":1,"b":2}')
