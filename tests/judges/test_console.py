"""The console in Chromium, over a gateway with its node: every page, hostile data, conflicts, signing in."""

from __future__ import annotations

import json
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

import treq
from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase
from twisted.web.client import Agent, HTTPConnectionPool

from couchnode.cluster import config
from gateway.server import plugins_for
from gateway.service import GatewayService
from gateway.settings import resolve
from tests.gateway.services.support import Service
from tests.judges import browser

SCRIPTS = Path(__file__).parent / "console"
LISTEN = "tcp:0:interface=127.0.0.1"
PLACE = "buckets/default/scopes/_default/collections/_default"
SHOP = "buckets/default/scopes/shop/collections/orders"
D = "/v1/buckets/default/documents/"
JSON = {"Content-Type": "application/json"}
EXACT = b'{"big": 12345678901234567890, "e": 1.00E+2, "__proto__": null}'
DESIGN = (
    b'{"views":{"by_n":{"map":"function (doc, meta) { if (doc.n) emit(doc.n, meta.id); }"},'
    b'"count":{"map":"function (doc, meta) { if (doc.n) emit([doc.n % 2, doc.n], 1); }",'
    b'"reduce":"_count"}}}'
)
KEYS = (
    *("a/b", "100%", "%2F", "<script>alert(1)</script>", "__proto__", "constructor", "toString", "..", "."),
    *(
        "a?b#c&d=e+f",
        " a  b ",
        "é/你🍺",
        "tab\there",
        "line\nbreak",
        "nul\0",
        "\u202eevil",
        "\ufeffbom",
        "'\"`\\",
    ),
    *("x" * 250, "é" * 125, "{folder}", "a.b.", "%00", "documents", "/", "//"),
)
KEY = "cgk_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"
HOSTILE = (
    '{"a": "<img src=x onerror=alert(1)>", "b": "</script><script>alert(2)</script>", "c": "\u202e{{7*7}}"}'
)

# Runs an action in the page that the address leads to.
_SETTLED = (
    "!document.getElementById('main').hasAttribute('aria-busy') && document.querySelector('main h1') !== null"
)


class ScriptTests(SynchronousTestCase):
    """The parts that need no page."""

    def test_scripts(self) -> None:
        """Their own tests pass in Node.js."""
        node = shutil.which("node")
        if node is None:
            raise SkipTest("not installed: node")
        files = sorted(str(path) for path in SCRIPTS.glob("*.test.mjs"))
        self.assertGreater(len(files), 3)
        ran = subprocess.run([node, "--test", *files], capture_output=True, text=True, check=False)
        self.assertEqual(ran.returncode, 0, ran.stdout[-4000:] + ran.stderr[-2000:])


class ConsoleCase(TestCase):
    """A gateway, and a browser on its console."""

    timeout = 40
    skip = browser.missing()
    options: dict[str, Any] = {"ephemeral": True}
    credentials: tuple[str, str] | None = None

    async def setUp(self) -> None:  # type: ignore[override]
        """Start both."""
        settings = resolve({"listen": [LISTEN], "timeout": "30", **self.options}, {})
        self.service = GatewayService(settings, plugins_for(settings))
        self.service.privilegedStartService()
        self.service.startService()
        self.addCleanup(self.service.stopService)
        await self.service.started
        self.url = self.service.urls[0]
        pool = HTTPConnectionPool(reactor)
        self.addCleanup(pool.closeCachedConnections)
        self.http = treq.client.HTTPClient(Agent(reactor, pool=pool))
        self.page = browser.Browser(Path(self.mktemp()).resolve())
        self.addCleanup(self.page.close)
        await self.page.start()
        await self.page.prefer("light")

    # ---- the gateway -----------------------------------------------------------------------------

    async def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        """Send a request beside the browser; returns status and body."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await self.http.request(
            method, self.url + path, data=body, headers=named, auth=self.credentials
        )
        return answer.code, await answer.content()

    async def put(self, key: str, body: bytes, kind: str = "application/json") -> None:
        """Store a document."""
        status, answer = await self.ask("PUT", D + quote(key, safe=""), body, Content_Type=kind)
        self.assertEqual(status, 200, answer)

    async def batch(self, *operations: dict[str, Any], path: str = "/v1/buckets/default/batch") -> None:
        """Carry out operations."""
        lines = "\n".join(map(json.dumps, operations)).encode()
        status, answer = await self.ask("POST", path, lines, Content_Type="application/x-ndjson")
        self.assertEqual((status, b'"error"' in answer), (200, False), answer)

    async def get(self, key: str) -> bytes:
        """Return a document's bytes."""
        status, body = await self.ask("GET", D + quote(key, safe=""))
        self.assertEqual(status, 200, body)
        return body

    # ---- the browser -----------------------------------------------------------------------------

    async def go(self, address: str) -> None:
        """Load the console at one of its addresses."""
        await self.page.open("about:blank")
        await self.page.open(f"{self.url}/#/{address}")
        await self.page.until(_SETTLED)

    async def settled(self, heading: str) -> None:
        """Wait until a page is there."""
        wanted = json.dumps(heading)
        await self.page.until(f"{_SETTLED} && document.querySelector('main h1').innerText === {wanted}")

    async def see(self, text: str, selector: str = "body") -> None:
        """Wait until a text is on the page."""
        found = json.dumps(selector)
        await self.page.until(f"document.querySelector({found})?.innerText.includes({json.dumps(text)})")

    async def press(self, label: str, inside: str = "body") -> None:
        """Click on a button, a link or a summary by its text."""
        selector = f"{inside} :is(button, a, summary)"
        await self.page.until(
            f"""(() => {{
              for (const one of document.querySelectorAll("[data-pressed]")) {{
                one.removeAttribute("data-pressed");
              }}
              const wanted = [...document.querySelectorAll({json.dumps(selector)})]
                .find(one => (one.getAttribute("aria-label") ?? one.innerText).trim() === {json.dumps(label)}
                  && one.checkVisibility() && !one.disabled);
              wanted?.setAttribute("data-pressed", "");
              return wanted !== undefined;
            }})()"""
        )
        await self.page.click("[data-pressed]")

    async def enter(self, label: str, text: str) -> None:
        """Put text into a field in place of what it holds."""
        found = await self.page.run(
            f"""(() => {{
              const wanted = [...document.querySelectorAll("input, textarea, select")].find(one =>
                (one.getAttribute("aria-label") ?? one.labels[0]?.innerText)?.trim() === {json.dumps(label)}
                  && one.checkVisibility());
              if (!wanted) return "";
              wanted.focus();
              wanted.select?.();
              return wanted.tagName;
            }})()"""
        )
        self.assertTrue(found, f"there is no field {label}")
        if text:
            await self.page.type(text)
        else:
            await self.page.press("Delete")

    async def choose(self, label: str, value: str) -> None:
        """Choose in a list."""
        done = await self.page.run(
            f"""(() => {{
              const wanted = [...document.querySelectorAll("select")].find(one =>
                (one.getAttribute("aria-label") ?? one.labels[0]?.innerText)?.trim() === {json.dumps(label)});
              wanted.value = {json.dumps(value)};
              wanted.dispatchEvent(new Event("change"));
              return wanted.value === {json.dumps(value)};
            }})()"""
        )
        self.assertTrue(done, label)

    async def check_quiet(self, *expected: int) -> None:
        """Find that nothing went wrong in the page."""
        self.assertEqual(self.page.mishaps(*expected), [])

    async def shop(self) -> None:
        """Store documents, collections and views."""
        for path in ("shop", "shop/collections/orders"):
            await self.ask("PUT", f"/v1/buckets/default/scopes/{path}")
        await self.put("a", EXACT)
        await self.put("text", b"plain", "text/plain")
        await self.put("binary", bytes(range(256)), "application/octet-stream")
        for number in range(1, 6):
            await self.put(f"n{number}", b'{"n": %d}' % number)
        await self.ask("PUT", "/v1/buckets/default/designs/numbers", DESIGN, **JSON)
        change = b'{"operations":[{"operation":"DictSet","path":"meta","xattr":true,"value":{"n":1.00}}]}'
        await self.ask("POST", D + "a/mutate", change, **JSON)


class PageTests(ConsoleCase):
    """Every page, for eyes and for ears."""

    timeout = 240

    async def check(self, what: str, width: int) -> None:
        """Find what axe finds, and whether the page fits."""
        self.assertEqual(await self.page.violations(), [], what)
        needed = await self.page.run("document.documentElement.scrollWidth")
        self.assertLessEqual(needed, width, f"{what} scrolls sideways")
        await self.check_quiet()

    async def test_pages(self) -> None:
        """Light, dark and on a phone: no violation of axe's rules, no error, no sideways scrolling."""
        await self.shop()
        pages = {
            "": "Buckets",
            "buckets/default": "default",
            f"{PLACE}/documents?contents=1": "Documents",
            f"{SHOP}/documents": "shop.orders",
            f"{PLACE}/documents/a": "a",
            f"{PLACE}/documents/binary": "binary",
            f"{PLACE}/documents/nothing": "nothing",
            f"{PLACE}/new": "New document",
            "buckets/default/designs": "Views",
            "buckets/default/designs/numbers": "numbers",
            "buckets/default/new-design": "New design document",
            "buckets/default/designs/numbers/views/count?group_level=1": "count",
            "buckets/default/query": "Query",
            f"{PLACE}/batch": "Batch",
            "figures": "Figures",
            "sign-in": "Sign in",
            "no/such/page": "There is no such page",
        }
        for scheme, size in (("light", browser.DESKTOP), ("dark", browser.DESKTOP), ("light", browser.PHONE)):
            await self.page.resize(*size)
            await self.page.prefer(scheme)
            await self.go("")
            for address, heading in pages.items():
                await self.page.run(f"location.hash = {json.dumps('#/' + address)}")
                await self.settled(heading)
                self.page.mishaps(404)
                await self.check(f"{address} {scheme} {size}", size[0])
                title = await self.page.run("document.title")
                self.assertTrue(title.endswith(" · couchgateway"), title)

    async def test_commands(self) -> None:
        """The request behind a page is there as a command, which does what the page does."""
        await self.put("it's", EXACT)
        await self.go(f"{PLACE}/documents/it's")
        await self.page.run("document.querySelector('details.request').open = true")
        await self.see("curl", ".command code")
        command = await self.page.run("document.querySelector('.command code').innerText")
        if shutil.which("curl") is None:
            raise SkipTest("not installed: curl")
        ran = await deferToThread(subprocess.run, ["sh", "-c", command], capture_output=True, check=False)
        self.assertEqual(ran.stdout, EXACT)

    async def test_history(self) -> None:
        """Back and forward lead through the pages; titles and focus follow."""
        await self.shop()
        await self.go("")
        await self.press("default", "main")
        await self.settled("default")
        self.assertEqual(await self.page.focused(), "default")
        await self.press("Documents", ".tabs")
        await self.settled("Documents")
        await self.press("a", "main tbody")
        await self.settled("a")
        self.assertEqual(await self.page.run("document.title"), "a · couchgateway")
        self.assertEqual(await self.page.run("document.activeElement.tagName"), "H1")
        for heading in ("Documents", "default", "Buckets"):
            await self.page.run("history.back()")
            await self.settled(heading)
        await self.page.run("history.forward()")
        await self.settled("default")
        await self.check_quiet()

    async def test_absent(self) -> None:
        """What does not exist is named, on a page of its own, with the gateway's message."""
        await self.go("buckets/default")
        for address, heading, message in (
            ("buckets/default/designs/none", "none", "DesignDocumentNotFound"),
            ("buckets/nothing", "nothing", "BucketNotFound"),
            ("buckets/default/scopes/none/collections/none/documents/a", "a", "ScopeNotFound"),
            ("buckets/default/designs/..", "..", "Browsers cannot request the name .."),
        ):
            await self.page.run(f"location.hash = {json.dumps('#/' + address)}")
            await self.settled(heading)
            await self.see(message, "main")
            self.assertEqual(await self.page.violations(), [])
        await self.check_quiet(404)

    async def test_without_scripts(self) -> None:
        """The first page says what it is, and how to go on."""
        await self.page.ask("Emulation.setScriptExecutionDisabled", value=True)
        await self.page.open(self.url + "/")
        shown = await self.page.run("document.querySelector('main').innerText")
        self.assertIn(f"curl {self.url}/v1/buckets/default/documents/hello", shown)
        self.assertIn("JavaScript", shown)
        for path in await self.page.run(
            "[...document.querySelectorAll('main a')].map(a => a.getAttribute('href'))"
        ):
            self.assertEqual((await self.ask("GET", "/" + path))[0], 200, path)

    async def test_policy(self) -> None:
        """A script that gets into the page would run nowhere."""
        await self.go("")
        for attempt in (
            "document.body.setAttribute('onclick', 'window.hacked = 1')",
            "Object.assign(document.createElement('script'), {src: 'data:text/javascript,window.hacked=1'})",
            "document.body.innerHTML = '<img src=x onerror=window.hacked=1>'",
            "eval('window.hacked = 1')",
            "document.body.append(Object.assign(document.createElement('iframe'), {src: 'https://a.example'}))",
        ):
            # Evaluated as the page's own code, not as that of DevTools.
            outcome = await self.page.run(
                f"new Promise(done => setTimeout(() => {{ try {{ {attempt}; done('') }}"
                " catch (error) { done(error.name) } }))"
            )
            self.assertIn(outcome, ("", "TypeError", "EvalError"), attempt)
        await self.page.click("body")
        self.assertIsNone(await self.page.run("window.hacked ?? null"))
        self.assertNotEqual(self.page.mishaps(), [])


class DocumentTests(ConsoleCase):
    """Documents: any key, any content, and others who write."""

    async def test_hostile_keys(self) -> None:
        """Each is found in the list, opened, edited and deleted; nothing of it is run."""
        await self.batch(*({"op": "set", "key": key, "value": {"n": 1}} for key in KEYS))
        await self.go(f"{PLACE}/documents")
        for key in KEYS:
            # Deleting the one before led back to the list.
            await self.settled("Documents")
            await self.see("all that match", "#results")
            address = await self.page.run(
                f"""(() => {{
                  const wanted = "/documents/" + encodeURIComponent({json.dumps(key)});
                  const found = [...document.querySelectorAll("main tbody a")]
                    .find(one => one.getAttribute("href").endsWith(wanted));
                  found?.click();
                  return found?.getAttribute("href") ?? null;
                }})()"""
            )
            self.assertIsNotNone(address, f"{key!r} is not in the list")
            await self.page.until("document.querySelector('main .editor textarea') !== null")
            await self.enter("Content", '{"n": 2}')
            await self.press("Save")
            await self.see("Saved.", "#status")
            stored = await self.outcome("get", key)
            self.assertEqual(stored["value"], {"n": 2}, key)
            await self.press("Delete")
            await self.press("Delete", "dialog")
            await self.see("Deleted.", "#status")
            self.assertEqual((await self.outcome("get", key))["status"], 404)
        await self.check_quiet()

    async def outcome(self, op: str, key: str) -> dict[str, Any]:
        """Return the answer to one operation."""
        body = json.dumps({"op": op, "key": key}).encode()
        _, answer = await self.ask(
            "POST", "/v1/buckets/default/batch", body, Content_Type="application/x-ndjson"
        )
        return dict(json.loads(answer))

    async def test_hostile_content(self) -> None:
        """Markup in a document, in its preview, in a view's row and in an attribute is text."""
        await self.put("evil", HOSTILE.encode())
        evil = json.dumps({"map": "function (doc, meta) { emit(doc.a, doc.b); }"})
        await self.ask("PUT", "/v1/buckets/default/designs/e", b'{"views":{"e":%b}}' % evil.encode(), **JSON)
        for address in (
            f"{PLACE}/documents/evil",
            f"{PLACE}/documents?contents=1",
            "buckets/default/designs/e/views/e",
        ):
            await self.go(address)
            await self.see("<img src=x onerror", "main")
            self.assertEqual(
                await self.page.run("document.querySelectorAll('main img, main script').length"), 0
            )
        await self.check_quiet()

    async def test_exact_text(self) -> None:
        """What is not edited stays byte for byte: numbers, blanks, line ends, a byte order mark."""
        for key, body, kind in (
            ("exact", EXACT, "application/json"),
            ("crlf", b"a\r\nb\r\n", "text/plain"),
            ("bom", b"\xef\xbb\xbf{}", "application/json"),
            ("end", b"x\n\n", "text/plain"),
            ("nul", b"a\0b", "text/plain"),
        ):
            await self.put(key, body, kind)
            await self.go(f"{PLACE}/documents/{key}")
            await self.page.run("document.querySelector('.editor textarea').setSelectionRange(0, 0)")
            area = "document.querySelector('.editor textarea')"
            await self.page.run(
                f"{area}.focus(); {area}.setSelectionRange({area}.value.length, {area}.value.length)"
            )
            await self.page.type(" ")
            await self.page.press("s", "Control")
            if kind == "application/json" and key == "bom":
                await self.press("Save anyway", "dialog")
            await self.see("Saved.", "#status")
            self.assertEqual(await self.get(key), body + b" ", key)

    async def test_no_change(self) -> None:
        """Nothing can be saved before something is changed, and Undo brings the first state back."""
        await self.put("a", EXACT)
        await self.go(f"{PLACE}/documents/a")
        self.assertTrue(await self.page.run("document.querySelector('.primary').disabled"))
        await self.enter("Content", "{}")
        self.assertFalse(await self.page.run("document.querySelector('.primary').disabled"))
        await self.press("Undo changes")
        self.assertEqual(
            await self.page.run("document.querySelector('.editor textarea').value"), EXACT.decode()
        )
        self.assertTrue(await self.page.run("document.querySelector('.primary').disabled"))

    async def test_flags_and_expiry(self) -> None:
        """Both are shown, kept by an edit, and changed on request."""
        await self.ask("PUT", D + "a", b"1", X_CB_Flags="7", Expires="1h")
        await self.go(f"{PLACE}/documents/a")
        await self.see("in 1 hour", ".about")
        await self.see("7", ".about")
        await self.enter("Content", "2")
        await self.press("Save")
        await self.see("Saved.", "#status")
        answer = await self.http.get(self.url + D + "a")
        await answer.content()
        self.assertEqual(answer.headers.getRawHeaders("X-CB-Flags"), ["7"])
        self.assertIsNotNone(answer.headers.getRawHeaders("Expires"))
        await self.choose("Type", str(0x4000000))
        await self.choose("Expires", "never")
        await self.press("Save")
        await self.page.until("document.querySelector('.about select').value === '67108864'")
        await self.see("Saved.", "#status")
        answer = await self.http.get(self.url + D + "a")
        await answer.content()
        self.assertEqual(answer.headers.getRawHeaders("X-CB-Flags"), [str(0x4000000)])
        self.assertIsNone(answer.headers.getRawHeaders("Expires"))
        await self.check_quiet()

    async def test_attributes(self) -> None:
        """An attribute is added and removed; the document's text and later saves are not affected."""
        await self.put("a", EXACT)
        await self.go(f"{PLACE}/documents/a")
        await self.see("none", ".about")
        await self.press("Add an attribute")
        await self.enter("Name", "meta")
        await self.enter("Value, as JSON", '{"n": 12345678901234567890}')
        await self.press("Store")
        await self.see("meta", ".about ul")
        path = b'{"operations":[{"operation":"Get","path":"meta","xattr":true}]}'
        _, answer = await self.ask("POST", D + "a/lookup", path, **JSON)
        self.assertEqual(answer, b'[{"value":{"n":12345678901234567890}}]')
        self.assertEqual(await self.get("a"), EXACT)
        await self.enter("Content", "{}")
        await self.press("Save")
        await self.see("Saved.", "#status")
        await self.press("meta", ".about")
        await self.press("Remove", ".about")
        await self.press("Remove", "dialog")
        await self.see("none", ".about")
        self.assertEqual(await self.get("a"), b"{}")
        await self.check_quiet()

    async def begin_conflict(self) -> None:
        """Edit a document that another client changes."""
        await self.put("a", b'{\n  "n": 1,\n  "same": true\n}')
        await self.go(f"{PLACE}/documents/a")
        await self.enter("Content", '{\n  "n": 3,\n  "same": true\n}')
        await self.put("a", b'{\n  "n": 2,\n  "same": true\n}')
        await self.press("Save")
        await self.see("Changed meanwhile", ".conflict")
        self.assertEqual(await self.page.focused(), "Changed meanwhile")
        await self.see('"n": 2', ".conflict .removed")
        await self.see('"n": 3', ".conflict .added")
        self.assertEqual(await self.page.run("document.querySelectorAll('.differs').length"), 1)
        self.assertIn(b'"n": 2', await self.get("a"))

    async def test_conflict_theirs(self) -> None:
        """Both versions are shown side by side; theirs can be taken."""
        await self.begin_conflict()
        self.assertEqual(await self.page.violations(), [])
        await self.press("Take theirs")
        await self.page.until("document.querySelector('.editor textarea')?.value.includes('\"n\": 2')")
        self.assertIn(b'"n": 2', await self.get("a"))
        await self.check_quiet(409)

    async def test_conflict_mine(self) -> None:
        """Mine can replace theirs, in one step; a third version in between is another conflict."""
        await self.begin_conflict()
        await self.put("a", b'{"n": 4}')
        await self.press("Replace theirs with mine")
        await self.see('"n": 4', ".conflict .removed")
        await self.press("Replace theirs with mine")
        await self.see("Saved.", "#status")
        self.assertIn(b'"n": 3', await self.get("a"))
        await self.check_quiet(409)

    async def test_conflict_edit(self) -> None:
        """Mine can be edited further, on the base of theirs."""
        await self.begin_conflict()
        await self.press("Keep editing mine")
        await self.enter("Content", '{"n": 5}')
        await self.press("Save")
        await self.see("Saved.", "#status")
        self.assertEqual(await self.get("a"), b'{"n": 5}')
        await self.check_quiet(409)

    async def test_conflict_removed(self) -> None:
        """A document that was removed meanwhile is stored again on request only."""
        await self.put("a", b"1")
        await self.go(f"{PLACE}/documents/a")
        await self.enter("Content", "2")
        await self.ask("DELETE", D + "a")
        await self.press("Save")
        await self.see("Removed meanwhile", ".conflict")
        self.assertEqual((await self.ask("GET", D + "a"))[0], 404)
        await self.press("Store mine again")
        await self.see("Saved.", "#status")
        self.assertEqual(await self.get("a"), b"2")
        await self.check_quiet(404)

    async def test_create(self) -> None:
        """A new document is created; one that exists is shown beside the new one."""
        await self.go(f"{PLACE}/new")
        await self.enter("Key", "é/1")
        await self.enter("Content", '{"n": 1.00}')
        await self.press("Create")
        await self.settled("é/1")
        self.assertEqual(await self.get("é/1"), b'{"n": 1.00}')
        await self.go(f"{PLACE}/new?key=%C3%A9%2F1")
        await self.enter("Content", '{"n": 2}')
        await self.press("Create")
        await self.see("1.00", ".conflict .removed")
        await self.press("Replace theirs with mine")
        await self.settled("é/1")
        self.assertEqual(await self.get("é/1"), b'{"n": 2}')
        await self.check_quiet(409)

    async def test_invalid_json(self) -> None:
        """The place of a mistake is named; it is stored on request only."""
        await self.put("a", b"{}")
        await self.go(f"{PLACE}/documents/a")
        await self.enter("Content", '{\n "a": }')
        await self.see("Line 2, column 7: expected a value", ".state")
        await self.press("Save")
        await self.press("Cancel", "dialog")
        self.assertEqual(await self.get("a"), b"{}")
        await self.check_quiet()

    async def test_large_and_binary(self) -> None:
        """Of 20 MB only the beginning is put on the page; bytes are shown as numbers, and both stay as they
        are."""
        large = b'{"x":"' + b"y" * (20 * 2**20 - 8) + b'"}'
        await self.put("large", large)
        await self.put("binary", bytes(range(256)), "application/octet-stream")
        await self.go(f"{PLACE}/documents/large")
        await self.see("only its beginning is shown", "main")
        self.assertLess(await self.page.run("document.body.innerText.length"), 100_000)
        await self.see("21 MB", ".about")
        await self.go(f"{PLACE}/documents?contents=1")
        await self.see("too large to be shown here", "main")
        await self.go(f"{PLACE}/documents/binary")
        await self.see("000000f0  f0 f1 f2", ".dump")
        await self.check_quiet()

    async def test_unsaved_changes(self) -> None:
        """Leaving a page with changes asks first."""
        await self.put("a", b"{}")
        await self.put("b", b"{}")
        await self.go(f"{PLACE}/documents/a")
        await self.enter("Content", '{"n": 1}')
        await self.press("Documents", ".crumbs")
        await self.see("Leave without saving?", "dialog")
        await self.press("Cancel", "dialog")
        await self.settled("a")
        self.assertIn("/documents/a", await self.page.run("location.hash"))
        await self.press("Documents", ".crumbs")
        await self.press("Discard changes", "dialog")
        await self.settled("Documents")
        self.assertEqual(await self.get("a"), b"{}")
        await self.check_quiet()

    async def test_search(self) -> None:
        """By prefix, by range, page by page, with a deep link to each."""
        await self.batch(*({"op": "set", "key": f"k{number:03}", "value": number} for number in range(250)))
        await self.put("other", b"1")
        await self.go(f"{PLACE}/documents")
        await self.see("100 documents so far", "#results")
        await self.press("Load more")
        await self.see("200 documents so far", "#results")
        await self.press("Load more")
        await self.see("251 documents, all that match", "#results")
        await self.enter("Keys that begin with", "k00")
        await self.press("Search")
        await self.see("10 documents, all that match", "#results")
        await self.go(await self.page.run("location.hash.slice(2)"))
        await self.see("10 documents, all that match", "#results")
        await self.go(f"{PLACE}/documents?start=k100&end=k102")
        await self.see("3 documents, all that match", "#results")
        await self.go(f"{PLACE}/documents?prefix=zzz")
        await self.see("No key matches.", "#results")
        await self.check_quiet()


class PartTests(ConsoleCase):
    """Collections, views, batches, figures."""

    async def test_collections(self) -> None:
        """They are created and dropped; sizes are shown."""
        await self.go("buckets/default")
        await self.press("Create a scope or a collection")
        await self.enter("Scope", "shop")
        await self.enter("Collection", "orders")
        await self.press("Create")
        await self.see("orders", "#content table")
        await self.batch({"op": "set", "key": "a", "value": 1}, path="/v1/" + SHOP + "/batch")
        await self.go("buckets/default")
        rows = "[...document.querySelectorAll('tbody tr')].map(one => one.innerText).join('\\n')"
        self.assertRegex(await self.page.run(rows), r"orders\s+1\s+\d+ bytes")
        await self.press("Drop shop.orders")
        await self.press("Drop the collection", "dialog")
        await self.page.until("!document.querySelector('#content table').innerText.includes('orders')")
        await self.check_quiet()

    async def test_views(self) -> None:
        """A design document is written, published and queried, reduced and not, and deleted."""
        for number in range(1, 6):
            await self.put(f"n{number}", b'{"n": %d}' % number)
        await self.go("buckets/default/new-design")
        await self.enter("Name", "numbers")
        await self.enter("View", "by_n")
        await self.enter(
            "Map function", "function (doc, meta) { if (doc.n) emit([doc.n % 2, doc.n], doc.n); }"
        )
        await self.choose("Reduce", "_sum")
        await self.press("Create")
        await self.settled("dev_numbers")
        await self.press("Publish")
        await self.settled("numbers")
        await self.press("Query")
        await self.see("15", "main tbody")
        await self.choose("Answer with", "level")
        await self.press("Run")
        await self.see("[1]", "main tbody")
        await self.see("9", "main tbody")
        await self.choose("Answer with", "false")
        await self.choose("Show", "range")
        await self.enter("From, as JSON", "[1, 3]")
        await self.press("Run")
        await self.see("2 rows", "main")
        self.assertIn("startkey", await self.page.run("location.hash"))
        await self.press("n3", "main tbody")
        await self.settled("n3")
        await self.page.run("history.back()")
        await self.settled("by_n")
        await self.see("2 rows", "main")
        await self.enter("From, as JSON", "a")
        await self.press("Run")
        await self.see("Strings need double quotes", "main")
        await self.go("buckets/default/designs/numbers")
        await self.press("Delete")
        await self.press("Delete", "dialog")
        await self.settled("Views")
        await self.check_quiet()

    async def test_wrong_function(self) -> None:
        """A function that cannot be parsed is the node's error, with its words."""
        await self.go("buckets/default/new-design")
        await self.enter("Name", "wrong")
        await self.enter("View", "v")
        await self.enter("Map function", "function (doc {")
        await self.press("Create")
        await self.see("InvalidDesignDocument", "main")
        await self.check_quiet(400)

    async def test_batch(self) -> None:
        """Operations and their answers, failures among them."""
        await self.go(f"{PLACE}/batch")
        lines = [
            '{"op":"set","key":"a","value":{"n":12345678901234567890}}',
            '{"op":"get","key":"a"}',
            '{"op":"get","key":"b"}',
        ]
        await self.enter("Operations, one per line", "\n".join(lines))
        await self.press("Run")
        await self.see("3 answers, 1 failed", "main")
        await self.see("12345678901234567890", "main tbody")
        await self.see("DocumentNotFound", "main tbody")
        await self.enter("Operations, one per line", "{}\n{")
        await self.see("Line 2", ".state")
        await self.check_quiet()

    async def test_query(self) -> None:
        """A cluster without the service is no failure: the page says what is missing."""
        await self.go("buckets/default/query")
        await self.press("Run")
        await self.see("No query service here", "main")
        self.assertEqual(await self.page.violations(), [])
        await self.check_quiet(404, 501)

    async def test_figures(self) -> None:
        """Charts grow, and each has its figures in a table."""
        await self.put("a", b"1")
        await self.go("figures")
        await self.page.until("document.querySelectorAll('.chart path.line').length >= 8")
        await self.page.run("document.querySelector('.chart details').open = true")
        await self.page.until("document.querySelectorAll('.chart tbody tr').length >= 1")
        label = await self.page.run("document.querySelector('.chart figcaption p').innerText")
        self.assertRegex(label, r"^Requests: 2xx [\d.]+, 3xx")
        self.assertEqual(await self.page.violations(), [])
        await self.check_quiet()

    async def test_keyboard(self) -> None:
        """A document is found, changed and saved with the keyboard alone."""
        await self.put("only", b"{}")
        await self.go("")

        async def tab_to(name: str) -> None:
            for _ in range(60):
                await self.page.press("Tab")
                if await self.page.focused() == name:
                    visible = "getComputedStyle(document.activeElement).outlineStyle"
                    self.assertNotEqual(await self.page.run(visible), "none", name)
                    return
            self.fail(f"Tab does not lead to {name}")

        await self.page.press("Tab")
        self.assertEqual(await self.page.focused(), "Skip to the content")
        await self.page.press("Enter")
        self.assertEqual(await self.page.focused(), "Buckets")
        await tab_to("default")
        await self.page.press("Enter")
        await self.settled("default")
        await tab_to("Documents")
        await self.page.press("Enter")
        await self.settled("Documents")
        await self.see("only", "#results")
        await tab_to("only")
        await self.page.press("Enter")
        await self.settled("only")
        for _ in range(20):
            await self.page.press("Tab")
            if await self.page.run("document.activeElement.tagName") == "TEXTAREA":
                break
        await self.page.press("a", "Control")
        await self.page.type('{"n": 1}')
        await self.page.press("s", "Control")
        await self.see("Saved.", "#status")
        self.assertEqual(await self.get("only"), b'{"n": 1}')
        await tab_to("Delete")
        await self.page.press("Enter")
        await self.see("Delete this document?", "dialog")
        self.assertEqual(await self.page.focused(), "Cancel")
        await self.page.press("Escape")
        await self.page.until("document.querySelector('dialog') === null")
        await self.check_quiet()


class QueryTests(ConsoleCase):
    """A cluster with a query service, which the test plays."""

    async def setUp(self) -> None:  # type: ignore[override]
        """Put the service into the cluster's map."""
        self.query = Service()
        self.addCleanup(self.query.close)
        made = config._cluster_part

        def with_service(nodes: Any, this_node: int) -> Any:
            part = made(nodes, this_node)
            part["nodesExt"][0]["services"]["n1ql"] = self.query.number
            return part

        self.patch(config, "_cluster_part", with_service)
        self.options = {"ephemeral": True, "query": "on"}
        await super().setUp()

    async def test_rows(self) -> None:
        """Rows are shown as they are sent, with what the service says of them; parameters go out as they are
        written."""
        self.query.script = lambda asked: asked.answer(
            b'{"requestID":"r","results":[{"id":"a","n":12345678901234567890},{"id":"<b>"},7],'
            b'"warnings":[{"code":1,"msg":"slow"}],"status":"success","metrics":{"executionTime":"2ms"}}'
        )
        await self.go("buckets/default/query")
        await self.enter("Statement", "SELECT 1")
        await self.enter("Parameters, as JSON", '{"big": 12345678901234567890}')
        await self.page.press("Enter", "Control")
        await self.see("3 rows", "main")
        for text in ("12345678901234567890", '"<b>"', "7", "slow", "2ms in the service"):
            await self.see(text, "main")
        (asked,) = self.query.asked
        self.assertIn(b'"$big":12345678901234567890', asked.body.replace(b" ", b""))
        self.assertIn(b'"readonly":true', asked.body.replace(b" ", b""))
        self.assertEqual(await self.page.violations(), [])
        await self.check_quiet()

    async def test_failure(self) -> None:
        """The service's own errors are shown."""
        error = b'{"requestID":"r","errors":[{"code":3000,"msg":"syntax error - at x"}],"status":"fatal"}'
        self.query.script = lambda asked: asked.answer(error, 400)
        await self.go("buckets/default/query")
        await self.press("Run")
        await self.see("syntax error - at x", "main")
        await self.check_quiet(400)


class SignInTests(ConsoleCase):
    """A gateway that asks for credentials."""

    credentials = ("me", "secret")

    async def setUp(self) -> None:  # type: ignore[override]
        """Start with a user."""
        password = self.mktemp()
        Path(password).write_text("secret\n", encoding="utf-8")
        self.options = {"ephemeral": True, "auth": "passthrough", "user": "me", "password-file": password}
        await super().setUp()

    async def sign_in(self, user: str, password: str) -> None:
        """Fill in the form."""
        await self.enter("User name", user)
        await self.enter("Password", password)
        await self.press("Sign in")

    async def test_sign_in(self) -> None:
        """A deep link asks for credentials, refuses wrong ones, and leads to where it said; signing out
        forgets them."""
        await self.put("a", b'{"n": 1}')
        await self.go(f"{PLACE}/documents/a")
        await self.settled("Sign in")
        self.assertEqual(await self.page.violations(), [])
        await self.sign_in("me", "wrong")
        await self.see("The user name or the password is wrong.", "main")
        self.assertEqual(await self.page.run("sessionStorage.length"), 0)
        await self.sign_in("me", "secret")
        await self.settled("a")
        await self.see("me", "#account")
        await self.enter("Content", '{"n": 2}')
        await self.press("Save")
        await self.see("Saved.", "#status")
        await self.go(f"{PLACE}/documents/a")
        await self.settled("a")
        await self.page.run("document.querySelector('details.request').open = true")
        await self.see("-u me", ".command code")
        self.assertNotIn("secret", await self.page.run("document.body.innerText"))
        await self.press("Sign out")
        await self.settled("Sign in")
        self.assertEqual(await self.page.run("sessionStorage.length + localStorage.length"), 0)
        await self.go("")
        await self.settled("Sign in")
        await self.check_quiet(401, 403)

    async def test_other_ways(self) -> None:
        """A token is sent as it is; without one that the gateway takes, its words are shown."""
        await self.go("sign-in")
        await self.choose("With", "bearer")
        await self.enter("Token", "token")
        await self.press("Sign in")
        await self.page.until("document.querySelector('main .notice.bad') !== null")
        await self.check_quiet(400, 401, 403)


class KeyTests(ConsoleCase):
    """A gateway that takes API keys: their rights are those of a rule."""

    async def setUp(self) -> None:  # type: ignore[override]
        """Start with a key that may read documents of one collection."""
        folder = Path(self.mktemp())
        folder.mkdir()
        password, keys, rules = (folder / name for name in ("password", "keys", "rules.toml"))
        password.write_text("secret\n", encoding="utf-8")
        keys.write_text(f"report sha256:{sha256(KEY.encode()).hexdigest()}\n", encoding="utf-8")
        rules.write_text(
            '[[rules]]\nname = "reads"\nwho = "key:report"\nbuckets = "default"\nallow = ["read", "list"]\n',
            encoding="utf-8",
        )
        self.options = {
            "ephemeral": True,
            "auth": "keys,basic",
            "user": "me",
            "password-file": str(password),
            "api-keys": str(keys),
            "access": str(rules),
        }
        await super().setUp()

    async def test_key(self) -> None:
        """A key signs in, and a change that its rule does not allow is refused with the gateway's words."""
        await self.go(f"{PLACE}/documents/a")
        await self.settled("Sign in")
        await self.choose("With", "bearer")
        await self.enter("Token", "cgk_another0123456789abcdefghijklmnopqrstuvwxyz")
        await self.press("Sign in")
        await self.page.until("document.querySelector('main .notice.bad') !== null")
        await self.enter("Token", KEY)
        await self.press("Sign in")
        await self.settled("a")
        await self.see("There is no document with this key", "main")
        await self.press("Create it")
        await self.settled("New document")
        await self.press("Create")
        await self.see("Not created", "main")
        await self.see("403", "main")
        await self.see("token", "#account")
        await self.check_quiet(401, 403, 404)
