"""Map and reduce functions in their sandboxes: their limits, and what happens beyond them."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from py_mini_racer import JSTimeoutException
from twisted.trial.unittest import SynchronousTestCase

from couchnode.views import sandbox
from couchnode.views.sandboxes import (
    BuildError,
    Change,
    FunctionError,
    MapOutput,
    Sandbox,
    SandboxError,
    SandboxLimits,
    SandboxPool,
)
from tests.sharing import after_module

CAS = 0x1122334455667788
ROOT = Path(__file__).resolve().parents[3]

# Enough for an honest function on a busy machine, and little enough for endless ones.
QUICK = SandboxLimits(call_seconds=0.3, heap_bytes=32 * 1024 * 1024, data_bytes=128 * 1024 * 1024)


def change(
    number: int,
    value: Any = None,
    *,
    raw: bytes | None = None,
    known: bool | None = True,
    xattrs: bytes = b"",
) -> Change:
    """Return the change that stored document ``d<number>``."""
    body = json.dumps(value).encode() if raw is None else raw
    return (number, f"d{number}".encode(), body, 1000 + number, CAS, 0, 0x2000006, 3, known, xattrs)


def documents(count: int) -> list[Change]:
    """Return changes whose documents are their numbers."""
    return [change(number, {"n": number}) for number in range(count)]


def at(number: int, body: str) -> str:
    """Return a map function that emits n, and does something else first with one document."""
    return f"function (doc, meta) {{ if (doc.n === {number}) {{ {body} }} emit(doc.n, null); }}"


PLAIN = "function (doc, meta) { emit(doc.n); }"


class TimeOfACall(SynchronousTestCase):
    """The time limit counts the processor's time, not the clock's."""

    def run_within(self, *, used: float, passed: float) -> str:
        """Run a call that ends after three looks at the time, each of which finds so many seconds more."""
        done: Any = None
        looks = 0

        class Time:
            def process_time(self) -> float:
                nonlocal looks
                looks += 1
                if looks == 4:
                    done.set_result("done")
                return used * (looks - 1)

            def monotonic(self) -> float:
                return passed * max(looks - 1, 0)

        async def call() -> Any:
            nonlocal done
            done = asyncio.get_running_loop().create_future()
            return await done

        self.patch(sandbox, "time", Time())
        return str(asyncio.run(sandbox._within(call(), 0.01)))

    def test_a_call_that_waits_for_the_processor(self) -> None:
        """It continues while its processor time is below the limit, and the elapsed time below PATIENCE
        times that."""
        self.assertEqual(self.run_within(used=0.001, passed=0.01), "done")

    def test_a_call_that_computes(self) -> None:
        """It ends at its limit."""
        self.assertRaises(JSTimeoutException, self.run_within, used=0.01, passed=0.0)

    def test_a_call_that_does_nothing(self) -> None:
        """It ends when the clock says PATIENCE times its limit."""
        self.assertRaises(JSTimeoutException, self.run_within, used=0.0, passed=0.01 * sandbox.PATIENCE)


@functools.cache
def shared_pool(limits: SandboxLimits) -> SandboxPool:
    """Return a pool of one process, the same for all tests with these limits."""
    pool = SandboxPool(limits, size=1)

    def close() -> None:
        shared_pool.cache_clear()
        pool.close()

    after_module(close)
    return pool


class Pooled(SynchronousTestCase):
    """A pool of one process, and short limits."""

    limits = QUICK
    is_shared = True

    def setUp(self) -> None:
        """Make the pool, or take the one that other tests have used."""
        if self.is_shared:
            self.pool = shared_pool(self.limits)
        else:
            self.pool = SandboxPool(self.limits, size=1)
            self.addCleanup(self.pool.close)

    def emitted(self, body: str, value: Any = None, **options: Any) -> list[Any]:
        """Return the rows, parsed, of a function with this body over one document."""
        output = self.pool.map("d", [f"function (doc, meta) {{ {body} }}"], [change(7, value, **options)])
        self.assertEqual(output.dropped, [])
        return [
            [json.loads(key), json.loads(row)]
            for key, row in zip(output.rows[0].keys, output.rows[0].values, strict=True)
        ]

    def survives(self, body: str, count: int = 40) -> MapOutput:
        """Assert that a document that does this is lost alone, for all functions, and return the output."""
        output = self.pool.map("d", [at(20, body), PLAIN], documents(count))
        rest = [number for number in range(count) if number != 20]
        self.assertEqual([index for index, _view, _reason in output.dropped], [20], output.dropped)
        self.assertIsNone(output.dropped[0][1])
        for rows in output.rows:
            self.assertEqual(rows.changes, rest)
            self.assertEqual(rows.keys, [str(number) for number in rest])
        return output


class Contract(Pooled):
    """Arguments of a map function, and the use of its emitted rows."""

    limits = SandboxLimits(call_seconds=5.0)

    def test_meta(self) -> None:
        """All members of meta, and no others."""
        ((meta, _),) = self.emitted("emit(meta)", {})
        self.assertEqual(
            meta,
            {
                "id": "d7",
                "rev": "3-11223344556677880000000002000006",
                "seq": "1007",
                "vb": "7",
                "expiration": 0,
                "flags": 0x2000006,
                "type": "json",
                "xattrs": {},
            },
        )

    def test_attributes(self) -> None:
        """The document's attributes by name, whatever its body is."""
        xattrs = '{"_s":{"a":[1]},"é":null}'.encode()
        for raw in (b"{}", b"raw"):
            rows = self.emitted("emit(meta.xattrs, meta.xattrs._s.a[0])", raw=raw, known=None, xattrs=xattrs)
            self.assertEqual(rows, [[{"_s": {"a": [1]}, "é": None}, 1]])

    def test_not_json(self) -> None:
        """Other documents come as base64, whether the node knew or not."""
        for raw in (b"\xff\x00{", b"{]", b"", b"NaN", b"\xef\xbb\xbf{}", b'1],["forged'):
            for known in (False, None):
                rows = self.emitted(
                    "emit([meta.type, meta.att_reason], decodeBase64(doc))", raw=raw, known=known
                )
                self.assertEqual(rows, [[["base64", "invalid_json"], list(raw)]])

    def test_json_that_is_none(self) -> None:
        """A value that was wrongly called JSON neither fails the batch nor forges documents."""
        output = self.pool.map("d", ["d => emit(d)"], [change(0, 1), change(1, raw=b"nope"), change(2, "x")])
        self.assertEqual(output.rows[0].keys, ["1", '"bm9wZQ=="', '"x"'])

    def test_unlooked_at(self) -> None:
        """JSON that was not parsed is JSON."""
        self.assertEqual(self.emitted("emit(doc)", {"a": [1]}, known=None), [[{"a": [1]}, None]])

    def test_what_emit_makes_of_values(self) -> None:
        """The rules of undefined, NaN, functions and dates."""
        rows = self.emitted(
            "emit(); emit(undefined, NaN); emit([undefined, function(){}, Symbol()], Infinity);"
            "emit(function(){}, Symbol()); emit(new Date(0), new Date(NaN)); emit({u: undefined, d: 1});"
        )
        self.assertEqual(
            rows,
            [
                [None, None],
                [None, None],
                [[None, None, None], None],
                [None, None],
                ["1970-01-01T00:00:00.000Z", None],
                [{"d": 1}, None],
            ],
        )

    def test_surrogates(self) -> None:
        """Any string of JavaScript survives, halves of pairs as escapes."""
        output = self.pool.map("d", [r"d => emit('\ud800', '\u{1f600}\udc00')"], [change(0)])
        self.assertEqual(output.rows[0].keys, ['"\\ud800"'])
        self.assertEqual(output.rows[0].values, ['"\U0001f600\\udc00"'])

    def test_forged_separators(self) -> None:
        """Whatever separates rows on the way cannot come out of a document or a function."""
        text = "\n\t\f\r\0\x1e\u2028 9\n9\n9"
        code = json.dumps(text)
        self.assertEqual(
            self.emitted(f"emit(doc, {code}); emit({{toJSON: () => {code}}}); emit({{{code}: 1}})", text),
            [[text, text], [text, None], [{text: 1}, None]],
        )
        output = self.pool.map("d", [f"d => {{ throw {code} }}"], [change(0)])
        self.assertEqual(output.dropped, [(0, 0, text)])

    def test_helpers(self) -> None:
        """sum, dateToArray, decodeBase64 and log."""
        self.assertEqual(
            self.emitted(
                "emit(sum([1, 2.5]), [sum([]), sum(['a', 1])]);"
                "emit(dateToArray('2012-02-29T23:59:58.999Z'), dateToArray(new Date(0)));"
                "emit(dateToArray('nonsense'), ['AP/+', 'YQ==', ''].map(decodeBase64));"
            ),
            [
                [3.5, [0, "0a1"]],
                [[2012, 2, 29, 23, 59, 58], [1970, 1, 1, 0, 0, 0]],
                [None, [[0, 255, 254], [97], []]],
            ],
        )
        output = self.pool.map(
            "d", ["d => { log('said\\n'); log(1) }", "d => decodeBase64('abc')"], [change(0)]
        )
        self.assertEqual(output.logged, ["said\n"])
        self.assertEqual([(index, view) for index, view, _ in output.dropped], [(0, 0), (0, 1)])
        self.assertIn("multiple of 4", output.dropped[1][2])

    def test_nothing_else_global(self) -> None:
        """No timers, console or shared memory, nor the helpers of CouchDB."""
        names = (
            "setTimeout", "clearTimeout", "__timer_manager", "__TimerManager", "console", "WebAssembly",
            "SharedArrayBuffer", "Atomics", "FinalizationRegistry", "require", "process", "toJSON", "isArray",
            "getRow", "send", "start", "print", "load", "quit",
        )  # fmt: skip
        rows = self.emitted(f"{json.dumps(names)}.forEach(n => emit(n, eval('typeof ' + n)))")
        self.assertEqual({name: kind for name, kind in rows if kind != "undefined"}, {})

    def test_shared_document(self) -> None:
        """Functions of one design see the same document, one after the other."""
        output = self.pool.map("d", ["d => { d.x = 5 }", "d => emit(d.x)"], [change(0, {}), change(1, {})])
        self.assertEqual(output.rows[1].keys, ["5", "5"])

    def test_throw(self) -> None:
        """A throw costs the rows of this document in this view, also those emitted before it."""
        output = self.pool.map(
            "d",
            ["function (d) { emit(d.n); if (d.n == 1) throw new Error('no ' + d.n); }", PLAIN],
            documents(3),
        )
        self.assertEqual([rows.changes for rows in output.rows], [[0, 2], [0, 1, 2]])
        self.assertEqual(output.dropped, [(1, 0, "Error: no 1")])

    def test_odd_throws(self) -> None:
        """Whatever is thrown has a reason, also what refuses to be printed."""
        for thrown in (
            "null",
            "Symbol('s')",
            "{toString() { throw 1 }}",
            "{toString() { emit(1) }}",
            "''",
            "[[]]",
        ):
            output = self.pool.map("d", [f"d => {{ emit(1); throw {thrown} }}"], [change(0)])
            self.assertEqual((len(output.dropped), output.rows[0].keys), (1, []), thrown)

    def test_circular(self) -> None:
        """A circular object, or one with a BigInt, is an exception that the function may catch."""
        self.assertEqual(
            self.emitted(
                "const c = {}; c.c = c; for (const v of [c, 1n]) try { emit(v) } catch (e) { emit(e.name) }"
            ),
            [["TypeError", None], ["TypeError", None]],
        )

    def test_deleted_and_unreadable(self) -> None:
        """Deletions, and keys that are not UTF-8, give no rows; the numbers of the others are right."""
        changes = documents(6)
        changes[1] = (*changes[1][:2], None, *changes[1][3:])
        changes[3] = (changes[3][0], b"\xff", *changes[3][2:])
        output = self.pool.map("d", [PLAIN], changes)
        self.assertEqual(output.rows[0].changes, [0, 2, 4, 5])
        self.assertEqual(output.rows[0].keys, ["0", "2", "4", "5"])

    def test_many(self) -> None:
        """More documents than go at once, and much output."""
        output = self.pool.map("d", ["d => { emit(d.n, 'x'.repeat(20000)); emit(d.n) }"], documents(1700))
        self.assertEqual(output.rows[0].changes, [number for number in range(1700) for _ in (0, 1)])
        self.assertEqual(set(map(len, output.rows[0].values)), {20002, 4})
        self.assertEqual(self.pool.map("d", [], documents(1)).rows, [])
        self.assertEqual(self.pool.map("d", [PLAIN], []).rows[0].keys, [])


class EmitLimits(Pooled):
    """Exceptions inside emit, and what fails a build."""

    limits = SandboxLimits(
        call_seconds=5.0, key_bytes=50, document_rows_bytes=3000, value_bytes=2000, document_keys=20
    )

    def test_key(self) -> None:
        """A key must be shorter than the limit, in bytes of UTF-8."""
        for text in ("x" * 47, "\u00e9" * 23, "\u65e5" * 15, "\U0001f600" * 11):
            self.assertEqual(self.emitted("emit(doc)", text), [[text, None]])
            output = self.pool.map("d", ["d => emit(d)"], [change(0, text + "xxxx")])
            self.assertIn("key", output.dropped[0][2])
        output = self.pool.map("d", ["d => emit(d)"], [change(0, "x" * 48)])
        self.assertEqual(len(output.dropped), 1)

    def test_rows(self) -> None:
        """All rows of a document count together; the next document starts afresh."""
        body = "d => { for (let i = 0; i < 10; i++) emit(10, 'é'.repeat(d.n)) }"
        output = self.pool.map(
            "d", [body], [change(0, {"n": 148}), change(1, {"n": 149}), change(2, {"n": 1})]
        )
        self.assertEqual([index for index, _, _ in output.dropped], [1])
        self.assertEqual(len(output.rows[0].keys), 20)

    def test_caught(self) -> None:
        """A function may catch the exception; its other rows are kept."""
        self.assertEqual(
            self.emitted("emit(1); try { emit('x'.repeat(60)) } catch (e) { emit('caught') } emit(2)"),
            [[1, None], ["caught", None], [2, None]],
        )

    def test_build_errors(self) -> None:
        """Too large a value and too many keys fail the build, caught or not."""
        for body in ("emit(1, 'x'.repeat(2001))", "for (let i = 0; i < 21; i++) emit(i)"):
            error = self.assertRaises(
                BuildError,
                self.pool.map,
                "d",
                [PLAIN, f"d => {{ try {{ {body} }} catch {{}} }}"],
                documents(2),
            )
            self.assertEqual(error.index, 1)
            self.assertIn("'d0'", error.reason)
        self.assertEqual(len(self.emitted("for (let i = 0; i < 20; i++) emit(i)")), 20)


class Isolation(Pooled):
    """User code harms itself at most."""

    is_shared = False
    limits = SandboxLimits(call_seconds=5.0)

    def test_designs(self) -> None:
        """Designs share no globals, also if contexts are recreated all the time."""
        seen = """d => {
            emit(typeof globalThis.x + typeof Array.prototype.x);
            globalThis.x = Array.prototype.x = 1;
        }"""
        for number in range(20):
            output = self.pool.map(f"design {number}", [seen], [change(0)])
            self.assertEqual(output.rows[0].keys, ['"undefinedundefined"'])
        self.assertEqual(len(self.pool.pids), 1)

    def test_overwritten_built_ins(self) -> None:
        """Batches work on when everything in reach was overwritten or trapped."""
        vandal = """
        (doc, meta) => {
          if (doc.n === 3) {
            for (const holder of [JSON, String.prototype, Function.prototype, Date, RegExp.prototype, Object])
              for (const name of Object.getOwnPropertyNames(holder))
                try { holder[name] = () => { throw 'trap' } } catch {}
            for (const name of ["emit", "sum", "log", "eval", "Function", "String", "Date", "JSON"])
              try { globalThis[name] = null } catch {}
            Array.prototype.push = Array.prototype.join = null;
            Array.prototype[Symbol.iterator] = null;
            Object.prototype.get = Object.prototype.att_reason = Object.prototype.toJSON = 1;
          }
          emit(doc.n);
        }"""
        output = self.pool.map("d", [vandal], documents(600))
        self.assertEqual(output.rows[0].changes, list(range(600)))
        self.assertEqual(output.rows[0].keys, [str(number) for number in range(600)])
        self.assertEqual(self.pool.map("other", [PLAIN], documents(3)).rows[0].keys, ["0", "1", "2"])

    def test_trapped_elements(self) -> None:
        """A setter for elements of arrays, which the library's own calls run into, costs speed and no row."""
        trap = at(3, "Object.defineProperty(Array.prototype, '0', {set() { throw 1 }, configurable: true})")
        output = self.pool.map("d", [trap], documents(600))
        self.assertEqual(output.rows[0].changes, list(range(600)))

    def test_forged_reply(self) -> None:
        """Arguments that a function replaced on their way in are found out, or harm its own rows alone."""
        forged = json.dumps([["x", "", "", "", 0, 0, 0, {}]] * 1000)
        trap = at(
            3,
            f"""Object.defineProperty(Array.prototype, '1', {{configurable: true, set(v) {{
                Object.defineProperty(this, '1', {{value: {json.dumps(forged)}}}) }} }})""",
        )
        output = self.pool.map("d", [trap], documents(600))
        self.assertLessEqual(set(output.rows[0].changes), set(range(600)))
        self.assertEqual(self.pool.map("other", [PLAIN], documents(3)).rows[0].keys, ["0", "1", "2"])

    def test_emit_kept_for_later(self) -> None:
        """emit works while a map function runs, and never for another document."""
        late = "d => { emit(d.n); Promise.resolve().then(() => emit('late')) }"
        self.assertEqual(self.pool.map("d", [late], documents(3)).rows[0].keys, ["0", "1", "2"])
        error = self.assertRaises(FunctionError, self.pool.reduce, "d", "(k, v) => emit(1)", None, "[]", True)
        self.assertIn("emit", error.reason)

    def test_nested_emit(self) -> None:
        """A toJSON that emits gives whole rows."""
        self.assertEqual(
            self.emitted("emit('a', {toJSON() { emit('b'); return 1 }})"), [["b", None], ["a", 1]]
        )


class Runaways(Pooled):
    """Functions that never end, or use all memory: their documents are dropped, the others are kept."""

    def test_endless_loop(self) -> None:
        """A loop."""
        output = self.survives("for (;;) {}")
        self.assertIn("ran longer than 0.3 s", output.dropped[0][2])

    def test_uncatchable(self) -> None:
        """A loop that catches whatever stops it."""
        self.survives("const f = () => { try { for (;;) {} } catch { f() } finally { f() } }; f();")

    def test_endless_regular_expression(self) -> None:
        """Catastrophic backtracking."""
        self.survives("/(a*)*b/.test('a'.repeat(10000));")

    def test_endless_promises(self) -> None:
        """A chain of promises that continues after the function has returned."""
        self.survives("(async () => { for (;;) await 0 })();")

    def test_endless_conversion(self) -> None:
        """Code that runs inside emit, and while an exception is printed."""
        self.survives("emit({toJSON() { for (;;) {} }});")
        self.survives("throw {toString() { for (;;) {} }};")

    def test_growing_objects(self) -> None:
        """Objects without end."""
        with SandboxPool(QUICK._replace(call_seconds=5.0), size=1) as self.pool:
            output = self.survives("const a = []; for (;;) a.push({x: [1, 2, 3]});")
        self.assertIn("32 MiB", output.dropped[0][2])

    def test_huge_array(self) -> None:
        """An array that V8 dies of."""
        self.survives("new Array(3e8).fill(0);")

    def test_huge_strings(self) -> None:
        """A string that V8 dies of."""
        self.survives("JSON.stringify('x'.repeat(5e8));")

    def test_huge_number(self) -> None:
        """A number that takes forever."""
        self.survives("BigInt(3) ** BigInt(1e8);")

    def test_endless_map(self) -> None:
        """A table without end."""
        self.survives("const m = new Map(); for (let i = 0; ; i++) m.set(i, i);")

    def test_memory_outside_the_heap(self) -> None:
        """V8 does not count typed arrays: the process has no more memory, and the function gets an error."""
        with SandboxPool(QUICK._replace(call_seconds=5.0), size=1) as pool:
            output = pool.map(
                "d",
                [at(20, "const a = []; for (;;) a.push(new Uint8Array(1e7).fill(1));"), PLAIN],
                documents(40),
            )
        self.assertEqual([drop[:2] for drop in output.dropped], [(20, 0)])
        self.assertIn("RangeError", output.dropped[0][2])

    def test_recursion(self) -> None:
        """Endless recursion is an exception."""
        output = self.pool.map("d", [at(20, "const f = () => f() + 1; f();"), PLAIN], documents(40))
        self.assertEqual([drop[:2] for drop in output.dropped], [(20, 0)])

    def test_hoarding(self) -> None:
        """Memory that many documents use up together is not blamed on one of them."""
        hoard = "d => { (globalThis.h = globalThis.h || []).push(new Array(2e5).fill(d.n)); emit(d.n) }"
        with SandboxPool(QUICK._replace(call_seconds=5.0), size=1) as pool:
            output = pool.map("d", [hoard], documents(60))
        self.assertEqual((output.dropped, output.rows[0].changes), ([], list(range(60))))

    def test_slow_but_honest(self) -> None:
        """The limit is for one document, not for all that travel together."""
        slow = "d => { const end = Date.now() + 30; while (Date.now() < end); emit(d.n) }"
        output = self.pool.map("d", [slow], documents(30))
        self.assertEqual((output.dropped, output.rows[0].changes), ([], list(range(30))))

    def test_hopeless(self) -> None:
        """So many documents in a row, also over several calls, and the build fails."""
        with SandboxPool(QUICK._replace(timeouts_in_a_row=3, call_seconds=0.1), size=1) as pool:
            error = self.assertRaises(BuildError, pool.map, "d", ["d => { for (;;) {} }"], documents(9))
            self.assertIn("3 documents in a row", error.reason)
            self.assertIn("ran longer than 0.1 s", error.reason)
            for _ in range(2):
                pool.map("d", ["d => { for (;;) {} }"], documents(1))
            self.assertRaises(BuildError, pool.map, "d", ["d => { for (;;) {} }"], documents(1))
            # Not in a row.
            some = "d => { if (d.n % 3) for (;;) {} emit(d.n) }"
            self.assertEqual(pool.map("d", [some], documents(8)).rows[0].changes, [0, 3, 6])


class Functions(Pooled):
    """Valid and invalid functions."""

    def test_check(self) -> None:
        """One function expression of any form; nothing of it runs."""
        good = [
            "function (doc, meta) { emit(meta.id) }",
            "function named(doc) {}",
            " // before\n function /* between */ (doc) { /* { */ } // after",
            "doc => emit(doc)",
            "(doc, meta) => { emit(doc) }",
            "(function (doc) {})",
            "((doc => 1))",
            "function (doc) { return /[)}]/.test('}') }",
            *("async x => 1", "async (x) => { }", "async function (doc) {}", "async function f(doc) {}"),
            *(
                "function* (doc) {}",
                "function *f (doc) {}",
                "async function* (doc) {}",
                "async /* c */ function () {}",
            ),
            *(
                "function f(doc) {};",
                "function (doc) {} ;; // done;",
                ";function (doc) {}",
                "x => 1;",
                "x => { } ; ;",
            ),
            *(
                "(function (doc) {});",
                "(function (doc) {}) // }",
                "( /* ( */ (function () {}) // )\n )",
                "// a\n;x => 1",
            ),
            *(
                "() => ({})",
                "({a, b: [c]}, ...rest) => {}",
                "([a = ')'] = [], {b} = {}) => b",
                "_ => _",
                "$ => $",
            ),
            *(
                "async => async",
                "(async) => 1",
                "async (async) => 1",
                "x => y => z",
                "(x => y => z)",
                "(((x => 1)))",
            ),
            *(
                "function (doc) { if (doc) { emit(1) } } // ; }",
                "function () {} /* } ; */",
                "/* ; */ function () {}",
            ),
            *(
                "x => `}${x}`",
                "x => /}/",
                "x => '//'",
                "x => '//' // it's",
                "x =>\n1 // ;",
                "\ufefffunction () {}",
            ),
            *("function\n(doc)\n{\n}\n\n", "function/**/f/**/(/**/)/**/{/**/}/**/", "async\t(x) => 1"),
        ]
        bad = [
            "",
            "1 + 1",
            "function (doc) {",
            "function (doc) {}; evil()",
            "function (doc) {}, 1",
            "doc",
            "function (doc) {}()",
            "function (doc) {} + 1",
            "{}",
            "1); (function () {}",
            "x => 1, 2",
            "(evil(), x => 1)",
            "x => 1; y",
            "functional",
            "}{",
            "*/",
            "f(function () {})",
            "function () {}.x // }",
            "function () {}, {}",
            "function () {} + {}",
            "function () {}\n{}",
            "function () {} || x => 1",
            "async\nfunction () {}",
            "async",
            "async()",
            ";",
            "// x => 1",
            "(function () {})()",
            "(x => 1)(2)",
            "function f() {} function g() {}",
            "x => 1; // c\n y",
            "function () {}; {}",
            "[x => 1]",
            "{x => 1}",
            "new function () {}",
            "function () {}``",
            "!function () {}",
            "x => {} {}",
            "/x => 1/",
            "'x => 1'",
            "`x => 1`",
            "function () {} { ; evil() ; (class extends function () {}",
            "({f() {}})",
            "a ? x => 1 : y",
            "function (a, a) { 'use strict' }",
            "function (doc) { return }}",
            "//",
            "/*",
        ]
        reasons = self.pool.check([("map", source) for source in good + bad])
        self.assertEqual(reasons[: len(good)], [None] * len(good))
        for source, reason in zip(bad, reasons[len(good) :], strict=True):
            self.assertRegex(reason or "", "^(SyntaxError|ReferenceError): ", source)
        self.assertEqual(self.pool.check([]), [])

    def test_check_values(self) -> None:
        """An expression whose value is a function is valid, in checks and in builds."""
        given = {
            "(function () { return function (doc) { emit(1) } })()": None,
            "(() => { const names = {a: 1}; return doc => emit(names[doc.x]) })();": None,
            "0, function (doc) {}": None,
            "new Function('doc', 'emit(1)')": None,
            "true ? x => 1 : y => 2": None,
            "({f() {}}).f": None,
            "(function () { throw new Error('no such luck') })()": "Error: no such luck",
            "(function () { return 1 })()": "SyntaxError: ",
        }
        for source, reason in zip(given, self.pool.check([("map", source) for source in given]), strict=True):
            if given[source] is None:
                self.assertIsNone(reason, source)
            else:
                self.assertIn(given[source], reason or "", source)
        (source, *_) = given
        output = self.pool.map("d", [source], [change(7)])
        self.assertEqual((len(output.rows), output.dropped), (1, []))
        reasons = self.pool.check([("map", "(() => { for (;;); })()"), ("map", source)])
        self.assertEqual(reasons, ["the function cannot be evaluated: it ran longer than 0.3 s", None])

    def test_check_monsters(self) -> None:
        """A text that the parser chokes on is refused, and the next one is not."""
        deep = "x => " + "(" * 200000 + ")" * 200000
        reasons = self.pool.check([("reduce", deep), ("reduce", "(k, v, r) => v.length")])
        self.assertTrue(reasons[0])
        self.assertIsNone(reasons[1])

    def test_load(self) -> None:
        """If a function does not load, the error names it and the reason."""
        for source, reason in (
            ("function (", "SyntaxError"),
            ("1", "function"),
            ("1); (x => 1", "SyntaxError"),
            ("(() => { throw new Error('at once') })()", "at once"),
            ("(() => { for (;;) {} })()", "ran longer"),
            ("(() => { (async () => { for (;;) await 0 })(); return x => 1 })()", "ran longer"),
            ("(() => { new Array(3e8).fill(0); return x => 1 })()", "cannot be evaluated"),
        ):
            error = self.assertRaises(FunctionError, self.pool.map, "d", [PLAIN, source], documents(1))
            self.assertIn(reason, error.reason)
        error = self.assertRaises(FunctionError, self.pool.map, "d", [PLAIN, "nonsense("], documents(1))
        self.assertEqual(error.index, 1)
        # The place of refused functions is used again.
        for number in range(12):
            self.assertRaises(FunctionError, self.pool.map, f"d{number}", ["("], documents(1))
        self.assertEqual(self.pool.map("d", [PLAIN], documents(1)).rows[0].keys, ["0"])


class Reductions(Pooled):
    """Reduce functions."""

    LENGTH = "function (keys, values, rereduce) { return rereduce ? sum(values) : values.length }"

    def test_arguments(self) -> None:
        """Keys with ids, values, and whether it is done again."""
        reflect = "function () { return Array.from(arguments) }"
        self.assertEqual(
            self.pool.reduce("d", reflect, '[["k","id"]]', "[1]", False), '[[["k","id"]],[1],false]'
        )
        self.assertEqual(self.pool.reduce("d", reflect, None, "[1,2]", True), "[null,[1,2],true]")

    def test_results(self) -> None:
        """Values without a JSON form are null."""
        for text, expected in (
            ("undefined", "null"),
            ("NaN", "null"),
            ("{a: 'é'}", '{"a":"é"}'),
            ("1n", None),
        ):
            if expected is None:
                self.assertRaises(FunctionError, self.pool.reduce, "d", f"() => ({text})", None, "[]", True)
            else:
                self.assertEqual(self.pool.reduce("d", f"() => ({text})", None, "[]", True), expected)

    def test_many(self) -> None:
        """Many at once, more than go in one request."""
        calls: list[tuple[str | None, str, bool]] = [
            ("[]", json.dumps(list(range(number % 7))), False) for number in range(5000)
        ]
        results = self.pool.reduce_many("d", self.LENGTH, calls)
        self.assertEqual(results, [str(number % 7) for number in range(5000)])
        self.assertEqual(self.pool.reduce_many("d", self.LENGTH, []), [])

    def test_failures(self) -> None:
        """Each failure with its reason, and the pool serves on."""
        for source, reason in (
            ("() => { throw new Error('no') }", "Error: no"),
            ("() => 'x'.repeat(70000)", "Reduction too large (70002 bytes)"),
            ("() => 'é'.repeat(40000)", "Reduction too large (80002 bytes)"),
            ("() => { for (;;) {} }", "the reduce function ran longer than 0.3 s"),
            ("() => { new Array(3e8).fill(0) }", "the reduce function "),
            ("() => {", "SyntaxError"),
        ):
            error = self.assertRaises(FunctionError, self.pool.reduce, "d", source, None, "[1]", True)
            self.assertIn(reason, error.reason)
            self.assertEqual(self.pool.reduce("d", self.LENGTH, None, "[1,4]", True), "5")

    def test_slow_but_honest(self) -> None:
        """The limit is for one call."""
        slow = "(k, v) => { const end = Date.now() + 30; while (Date.now() < end); return v.length }"
        results = self.pool.reduce_many("d", slow, [("[]", "[1]", False)] * 20)
        self.assertEqual(results, ["1"] * 20)


class Processes(SynchronousTestCase):
    """Processes come and go without a trace."""

    def test_killed_in_the_middle(self) -> None:
        """A process that is killed during a call loses nothing."""
        with SandboxPool(SandboxLimits(call_seconds=5.0), size=1) as pool:
            pool.map("d", [PLAIN], documents(1))
            (before,) = pool.pids
            slow = "d => { const end = Date.now() + 10; while (Date.now() < end); emit(d.n) }"
            killer = threading.Timer(0.1, os.kill, (before, signal.SIGKILL))
            killer.start()
            self.addCleanup(killer.join)
            output = pool.map("d", [slow], documents(50))
            self.assertEqual((output.dropped, output.rows[0].changes), ([], list(range(50))))
            self.assertNotEqual(pool.pids, [before])

    def test_stopped(self) -> None:
        """A process that does not answer is ended, and another one does its work."""
        with SandboxPool(SandboxLimits(call_seconds=0.1), size=1) as pool:
            pool.map("d", [PLAIN], documents(1))
            os.kill(pool.pids[0], signal.SIGSTOP)
            self.assertEqual(pool.map("d", [PLAIN], documents(3)).rows[0].keys, ["0", "1", "2"])

    def test_killed_while_idle(self) -> None:
        """A process that died meanwhile is replaced."""
        with SandboxPool(size=1) as pool:
            pool.check([("map", PLAIN)])
            os.kill(pool.pids[0], signal.SIGKILL)
            self.assertEqual(pool.check([("map", PLAIN)]), [None])

    def test_end_of_input(self) -> None:
        """The process ends when its parent has ended, before or after it received the limits."""
        for frames in (b"", b"\0\0\0\5half"):
            process = subprocess.run(
                [sys.executable, "-m", "couchnode.views.sandbox"],
                input=frames,
                capture_output=True,
                timeout=30,
                cwd=ROOT,
            )
            self.assertEqual((process.returncode, process.stdout), (0, b""))
        box = Sandbox(SandboxLimits())
        self.addCleanup(box.close)
        assert box._process.stdin is not None
        box._process.stdin.close()
        self.assertEqual(box._process.wait(30), 0)

    def test_nothing_left(self) -> None:
        """Neither descriptors nor dead children remain."""
        # What the first start of all opens stays open: see tests.tooling.forking.
        with SandboxPool(size=1) as pool:
            pool.check([("map", PLAIN)])
        before = len(os.listdir("/dev/fd"))
        pids = []
        for _ in range(3):
            with SandboxPool(QUICK._replace(call_seconds=0.1), size=1) as pool:
                pool.map("d", [at(2, "for (;;) {}")], documents(4))
                pids += pool.pids
                self.assertRaises(FunctionError, pool.map, "d", ["("], documents(1))
        self.assertEqual(len(os.listdir("/dev/fd")), before)
        for pid in pids:
            self.assertRaises(ProcessLookupError, os.kill, pid, 0)

    def test_contexts_do_not_pile_up(self) -> None:
        """A process keeps a few contexts, for any number of designs."""
        with SandboxPool(size=1) as pool:
            for number in range(12):
                pool.map(f"d{number}", [PLAIN], documents(1))
            before = self.threads(pool.pids[0])
            for number in range(40):
                pool.map(f"e{number}", [PLAIN], documents(1))
            self.assertEqual(self.threads(pool.pids[0]), before)

    def threads(self, pid: int) -> int:
        """Count the threads of a process; a context has two."""
        tasks = Path(f"/proc/{pid}/task")
        return len(list(tasks.iterdir())) if tasks.exists() else 0

    def test_threads_share(self) -> None:
        """More threads than processes: each gets its own answer."""
        results: dict[int, list[str]] = {}
        with SandboxPool(SandboxLimits(call_seconds=5.0), size=2) as pool:

            def work(number: int) -> None:
                for _ in range(5):
                    results[number] = (
                        pool.map(str(number), [f"d => emit({number})"], documents(3)).rows[0].keys
                    )

            threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            self.assertLessEqual(len(pool.pids), 2)
        self.assertEqual(results, {number: [str(number)] * 3 for number in range(6)})

    def test_close_during_a_call(self) -> None:
        """Closing the pool ends running calls, and refuses later ones."""
        pool = SandboxPool(SandboxLimits(call_seconds=60.0), size=1)
        pool.map("d", [PLAIN], documents(1))
        timer = threading.Timer(0.2, pool.close)
        timer.start()
        self.addCleanup(timer.join)
        self.assertRaises(SandboxError, pool.map, "d", ["d => { for (;;) {} }"], documents(1))
        self.assertRaises(SandboxError, pool.check, [("map", PLAIN)])
        self.assertEqual(pool.pids, [])

    def test_does_not_start(self) -> None:
        """A missing interpreter or library is a clear error."""
        self.patch(sys, "executable", "/nonexistent/python")
        with SandboxPool(size=1) as pool:
            error = self.assertRaises(SandboxError, pool.check, [("map", PLAIN)])
            self.assertIn("cannot be started", str(error))
            # Nor is a place lost.
            self.assertRaises(SandboxError, pool.check, [("map", PLAIN)])

    def test_without_v8(self) -> None:
        """A missing mini-racer is named."""
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "py_mini_racer.py").write_text("raise ImportError('not here')\n")
        self.patch(sys, "path", [str(folder.resolve()), *sys.path])
        with SandboxPool(size=1) as pool:
            error = self.assertRaises(SandboxError, pool.check, [("map", PLAIN)])
        self.assertIn("mini-racer", str(error))
        self.assertIn("not here", str(error))
