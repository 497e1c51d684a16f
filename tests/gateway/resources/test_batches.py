"""Batches whose caller's rights change while they run."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred

from gateway.access.keys import key_line, read_keys
from gateway.access.rules import Account, Rule, RuleTable, Wildcard
from gateway.access.ways import ByKey
from gateway.cluster.credentials import CallerCredentials, Passthrough
from tests.gateway.access.ruled import ruled
from tests.gateway.hotpath import HotPathCase
from tests.gateway.support import SECRET, Transport, basic, read_reply

LINES = (
    '{"op":"get","key":"k%d"}\n',
    '{"op":"set","key":"k%d","value":1}\n',
    '{"key":"\\u006b%d","op":"get"}\n',
)
"""Two that take the fast path, and one that does not."""


def rule(*actions: str, account: str | None = None, who: str = "key") -> Rule:
    """Return a rule for the callers of the tests."""
    allowed = frozenset(actions) if actions else None
    return Rule("r", ((who, Wildcard("*")),), ("*",), ("*",), ("*",), allowed, account)


class ChangingTests(HotPathCase):
    """A batch of one client, on a connection to a node in memory."""

    def begin(self, *rules: Rule, headers: dict[str, str] | None = None) -> Transport:
        """Begin a batch."""
        path = self.mktemp()
        with open(path, "w", encoding="utf-8") as file:
            file.write(key_line("a", "cgk_a") + "\n")
        self.keys = read_keys(path)
        self.table = RuleTable(rules, {"other": Account("other", "secret")})
        self.authorizer = ruled(
            self.table, [ByKey(lambda: self.keys, lambda: 0.0)], basic=True, confirm=self.confirm
        )
        self.authorizer._table = lambda: self.table
        client = self.open(self.authorizer)[0]
        given = headers or {"Authorization": "Bearer cgk_a"}
        lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        head = f"POST /v1/buckets/b/batch HTTP/1.1\r\nHost: h\r\n{lines}Transfer-Encoding: chunked\r\n\r\n"
        client.protocol.dataReceived(head.encode())
        self.asked = 0
        return client

    def confirm(self, credentials: CallerCredentials) -> Any:
        """The cluster never confirms a password."""
        return Deferred()

    def send(self, client: Transport) -> None:
        """Send a chunk with each kind of line."""
        data = "".join(line % (self.asked + number) for number, line in enumerate(LINES)).encode()
        self.asked += len(LINES)
        client.protocol.dataReceived(b"%x\r\n%b\r\n" % (len(data), data))
        self.work_on()

    def work_on(self) -> None:
        """Let the gateway and the node work."""
        for _ in range(3):
            self.carry_out()
            for protocol, answers in self.arrivals():
                protocol.dataReceived(answers)

    def change(self, *rules: Rule) -> None:
        """Put other rules into force."""
        self.table = RuleTable(rules, self.table.accounts)
        self.authorizer.forget()

    def end(self, client: Transport) -> list[tuple[int, str]]:
        """End the batch; return status and code of each line."""
        client.protocol.dataReceived(b"0\r\n\r\n")
        self.work_on()
        reply, rest = read_reply(client.value())
        self.assertEqual((reply.status, rest, self.authorizer._followers), (200, b"", {}))
        found = [json.loads(line) for line in reply.body.splitlines()]
        return [(one["status"], one.get("error", {}).get("code", "")) for one in found]

    def kinds(self, client: Transport) -> list[list[str]]:
        """End the batch; return the codes of the lines of each chunk, ``""`` for success."""
        found = ["" if status in (200, 404) else code for status, code in self.end(client)]
        return [found[at : at + len(LINES)] for at in range(0, len(found), len(LINES))]

    def test_less(self) -> None:
        """From a change on, lines are carried out only if the rules allow them now; of the lines before it,
        nothing changes."""
        client = self.begin(rule())
        self.send(client)
        self.change(rule("read"))
        self.send(client)
        self.change()
        self.send(client)
        self.change(rule("read", "write"))
        self.send(client)
        self.assertEqual(
            self.kinds(client), [["", "", ""], ["", "AccessDenied", ""], ["AccessDenied"] * 3, ["", "", ""]]
        )

    def test_revoked(self) -> None:
        """The lines of a key that is withdrawn are refused."""
        client = self.begin(rule())
        self.send(client)
        with open(path := self.mktemp(), "w", encoding="utf-8"):
            self.keys = read_keys(path)
        self.authorizer.forget()
        self.send(client)
        self.assertEqual(self.kinds(client), [["", "", ""], ["Unauthorized"] * 3])

    def test_another_account(self) -> None:
        """If the rules name another account, lines are not carried out as the account before."""
        client = self.begin(rule())
        self.send(client)
        self.change(rule(account="other"))
        self.send(client)
        self.change(rule())
        self.send(client)
        self.assertEqual(self.kinds(client), [["", "", ""], ["AccessDenied"] * 3, ["", "", ""]])

    def test_password(self) -> None:
        """Lines of a user whose rules are gone are refused, without a wait for the cluster."""
        client = self.begin(rule(who="user"), headers=basic("ann", "secret"))
        self.send(client)
        self.change()
        self.send(client)
        self.assertEqual(self.kinds(client), [["", "", ""], ["Unauthorized"] * 3])

    def test_client_leaves(self) -> None:
        """A batch that is over is not looked at any more."""
        client = self.begin(rule())
        self.send(client)
        self.assertEqual(len(self.authorizer._followers), 1)
        client.loseConnection()
        self.assertEqual(self.authorizer._followers, {})
        self.change()

    def test_without_rules(self) -> None:
        """The cluster alone decides about callers with passwords: their batches run on."""
        passthrough = Passthrough(SECRET)
        calls: list[None] = []
        passthrough.follow(lambda: calls.append(None))()
        self.assertEqual(calls, [])
