"""The parts of bench/ whose mistakes would not show in their tables."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import SkipTest
from unittest.mock import patch

from twisted.python.filepath import FilePath
from twisted.trial.unittest import SynchronousTestCase

from bench import builds, instructions, interpreters, page, peers
from bench.connections import read_answer
from bench.gateway import Figures
from bench.harness import Samples
from bench.instructions import InstructionCounter
from bench.kindlist import KINDS
from bench.kinds import Figures as KindFigures
from bench.load import DOCUMENT, KEYS, Load, Outcome, requests_of
from bench.peers import CLIENT, GATEWAY, KLEIN, WEBDIS, Missing, Peer
from bench.profile import stage_of
from bench.sampler import Sampler
from bench.securepeers import SECURE


class LoadTests(SynchronousTestCase):
    """Requests of a load."""

    def requests(self, puts: int) -> list[tuple[str, str, str]]:
        """Return the requests with so many PUTs of ten."""
        return requests_of(Load("http://127.0.0.1:1", "/get/{n}", "/put/{n}", puts, 1, 1))

    def test_gets_and_puts_alone_have_each_key_once(self) -> None:
        """A thousand requests, a thousand paths; a body where one is stored."""
        for puts, method, body in [(0, "GET", ""), (10, "PUT", DOCUMENT)]:
            expected = {(method, f"/{method.lower()}/{key}", body) for key in range(KEYS)}
            self.assertEqual(set(self.requests(puts)), expected)
            self.assertEqual(len(self.requests(puts)), KEYS)

    def test_one_put_of_ten_reaches_every_key(self) -> None:
        """Any ten requests include one, and no key is only read."""
        requests = self.requests(1)
        puts = [number for number, (method, _, _) in enumerate(requests) if method == "PUT"]
        self.assertEqual(len(puts), len(requests) // 10)
        self.assertEqual({requests[number][1] for number in puts}, {f"/put/{key}" for key in range(KEYS)})

    def test_documents_are_a_kibibyte(self) -> None:
        """The size that the tables state."""
        self.assertEqual(len(DOCUMENT), 1024)


class FiguresTests(SynchronousTestCase):
    """Conclusions from the figures."""

    def figures(
        self, rates: dict[str, float], p99: dict[str, float], cost_us: float, tls_us: float | None
    ) -> Figures:
        """Return one round of GETs at 32 connections."""
        figures = Figures()
        for name, rate in rates.items():
            figures.rates.add(name, "GET, 32", rate)
        for name, latency in p99.items():
            figures.p99_ms.add(name, "GET, 32", latency)
        figures.costs.add(f"{GATEWAY}: gateway", "GET, 32", cost_us)
        if tls_us is not None:
            figures.costs.add(f"{SECURE}: gateway", "GET, 32", tls_us)
        return figures

    def verdicts(self, figures: Figures) -> list[str]:
        """Return the last column of the table of aims."""
        return [line.split(" | ")[-1].strip(" |") for line in figures.aims([32]).splitlines()[2:]]

    def test_aims_are_met_at_their_limits(self) -> None:
        """Each of the six."""
        rates = {GATEWAY: 24.0, WEBDIS: 24.0, KLEIN: 6.0, CLIENT: 4.0}
        figures = self.figures(rates, {GATEWAY: 2.0, WEBDIS: 2.0}, 20.0, 26.0)
        self.assertEqual(self.verdicts(figures), ["met"] * 6)

    def test_aims_are_missed_beyond_their_limits(self) -> None:
        """Each of the six."""
        rates = {GATEWAY: 24.0, WEBDIS: 25.0, KLEIN: 6.1, CLIENT: 4.1}
        figures = self.figures(rates, {GATEWAY: 2.1, WEBDIS: 2.0}, 20.1, 26.2)
        self.assertEqual(self.verdicts(figures), ["**missed**"] * 6)

    def test_an_absent_peer_is_no_success(self) -> None:
        """A missing measurement is neither met nor missed."""
        figures = self.figures({GATEWAY: 24.0, KLEIN: 6.0}, {GATEWAY: 2.0}, 20.0, None)
        self.assertEqual(
            self.verdicts(figures),
            ["not measured", "met", "not measured", "met", "not measured", "not measured"],
        )

    def test_a_row_keeps_its_columns(self) -> None:
        """Where one load of a peer has no figure, the other cells stay in their columns."""
        figures = self.figures({GATEWAY: 24.0, KLEIN: 6.0}, {}, 20.0, None)
        figures.rates.add(GATEWAY, "PUT, 32", 10.0)
        self.assertIn(f"| {GATEWAY} / {KLEIN} | 4.00 | - |", figures.ratios().splitlines())

    def test_a_ratio_is_between_figures_of_the_same_round(self) -> None:
        """A load that slows both down for one round leaves it as it is; the extremes follow."""
        samples = Samples()
        for unit, figure in [(10.0, 12.0), (100.0, 130.0), (20.0, 22.0)]:
            samples.add("base", "GET", unit)
            samples.add("row", "GET", figure)
        self.assertEqual(str(samples.ratio("row", "base", "GET")), "1.20 (1.10-1.30)")
        self.assertEqual(str(samples.ratio("base", "base", "GET")), "1.00")

    def test_a_round_that_failed_leaves_the_medians(self) -> None:
        """Its figures have no partners then; with none at all, or a unit of nothing, there is no ratio."""
        samples = Samples()
        for row, figures in {"base": [10.0, 30.0, 20.0], "row": [30.0], "idle": [0.0]}.items():
            for figure in figures:
                samples.add(row, "GET", figure)
        self.assertEqual(str(samples.ratio("row", "base", "GET")), "1.50")
        self.assertIsNone(samples.ratio("row", "absent", "GET"))
        self.assertIsNone(samples.ratio("absent", "base", "GET"))
        self.assertIsNone(samples.ratio("row", "idle", "GET"))

    def test_cpu_is_shared_by_requests(self) -> None:
        """For every process; latencies are in milliseconds."""
        figures = Figures()
        peer = Peer(GATEWAY, "http://127.0.0.1:1", {"gateway": 1, "node": 2})
        used = iter([1.0, 5.0, 3.0, 5.5])  # gateway and node before, then after
        with (
            patch("bench.gateway.cpu_seconds", lambda pid: next(used)),
            patch("bench.gateway.run", lambda load: Outcome(100_000, 2.0, 1500.0, 2500.0, 0.5)),
        ):
            figures.measure(peer, "GET", 32, 2)
        self.assertEqual(figures.rates.median(GATEWAY, "GET, 32"), 50_000)
        self.assertEqual(figures.costs.median(f"{GATEWAY}: gateway", "GET, 32"), 20.0)
        self.assertEqual(figures.costs.median(f"{GATEWAY}: node", "GET, 32"), 5.0)
        self.assertEqual(figures.medians_ms.median(GATEWAY, "GET, 32"), 1.5)
        self.assertEqual(figures.p99_ms.median(GATEWAY, "GET, 32"), 2.5)
        self.assertEqual(figures.generator_us.median("load generator", "GET, 32"), 5.0)


class PeersTests(SynchronousTestCase):
    """Programs that take part."""

    def test_what_is_not_installed_is_left_out(self) -> None:
        """The others are still measured."""
        there = Peer(KLEIN, "http://127.0.0.1:1", {})

        def missing(*_: Any) -> Peer:
            raise Missing("apt-get install it")

        makers = {WEBDIS: missing, KLEIN: lambda *_: there}
        node: Any = None
        told: list[str] = []
        with (
            ExitStack() as stack,
            patch.dict(peers.PEERS, makers),
            patch("builtins.print", lambda line, **_: told.append(line)),
        ):
            self.assertEqual(peers.start(stack, [WEBDIS, KLEIN], node), [there])
        self.assertEqual(told, [f"{WEBDIS} is left out: apt-get install it"])


class AnswerTests(SynchronousTestCase):
    """When an answer is whole."""

    def read(self, data: bytes) -> None:
        """Read what a server sends before it closes the connection."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(data)
            theirs.shutdown(socket.SHUT_WR)
            read_answer(ours)

    def test_answers_are_read_to_their_end(self) -> None:
        """A shorter one, or another status, is no answer."""
        self.read(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc")
        for wrong in [
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\n\r\nabc",
        ]:
            self.assertRaises(RuntimeError, self.read, wrong)


class ProfileTests(SynchronousTestCase):
    """Attribution of a sample."""

    def test_the_innermost_known_function_counts(self) -> None:
        """The standard library works for its caller; the longest prefix wins."""
        for stack, stage in [
            ("twisted.internet.base:Reactor.run;gateway.resources.documents:get;json:loads", "handler: "),
            ("gateway.app:Gateway.dispatch;gateway.cluster.pool:ConnectionPool.connection", "credentials "),
            ("txcouchbase.node:Node.send;couchbase.protocol.frames:encode", "key-value frames"),
            ("gateway.app:f;twisted.internet.defer:Deferred.callback", "Deferreds"),
            ("runpy:run;somewhere:f", "other"),
        ]:
            self.assertTrue(stage_of(stack).startswith(stage), (stack, stage_of(stack)))

    def test_a_socket_is_its_protocols(self) -> None:
        """Twisted has one class for all of them."""
        for stack, stage in [
            ("a:b;twisted.internet.tcp:Connection.doRead(gateway.web:Channel)", "socket: receive (HTTP)"),
            (
                "twisted.internet.tcp:Connection.writeSomeData(txcouchbase.node:NodeProtocol);socket:send",
                "socket: send (key-value)",
            ),
            ("gateway.http.exchange:Exchange.respond;reactor.writer:send", "socket: send (HTTP)"),
            ("txcouchbase.node:NodeProtocol.flush;reactor.writer:send", "socket: send (key-value)"),
        ]:
            self.assertEqual(stage_of(stack), stage)

    def test_busy_functions_are_seen(self) -> None:
        """Outermost first; and no sample is taken after the end."""
        sampler = Sampler()
        sampler.start()
        try:
            while not any(
                stack[0].endswith("test_busy_functions_are_seen") for stack in list(sampler.counts)
            ):
                sum(range(1000))
        finally:
            stacks = sampler.stop()
        own = next(stack for stack in stacks if stack.endswith("test_busy_functions_are_seen"))
        self.assertIn("twisted.trial", own.partition(f"{__name__}:")[0])
        self.assertGreaterEqual(stacks[own], 1)


class KindsTests(SynchronousTestCase):
    """Costs of kinds of requests, and the requests themselves."""

    def test_a_ratio_is_to_what_was_measured_beside_it(self) -> None:
        """The median of the rounds' own ratios; goals are relative to the kind that is named."""
        figures = KindFigures({}, 1, 1.0)
        for unit in (10.0, 20.0, 30.0):
            figures.add("GET", unit, unit)
            figures.add("PUT", 2 * unit, unit)
            figures.add("PUT with X-CB-TTL", 2.2 * unit, 2 * unit)
            figures.add("GET with an expiry", 1.1 * unit, unit)
        kinds = [kind for kind in KINDS if kind.name in ("PUT with X-CB-TTL", "GET with an expiry")]
        rows = [line.split(" | ")[1:8] for line in figures.table(kinds).splitlines()[2:]]
        self.assertEqual(
            rows,
            [
                ["22.0", "1.10", "GET", "1.10", "1.03", "**missed**", "-"],
                ["44.0", "2.20", "PUT", "1.10", "1.1", "met", "-"],
            ],
        )

    def test_instructions_decide_within_the_range(self) -> None:
        """They do not where every round missed the goal, or where they miss it, too."""
        verdicts = []
        for costs, counted in (
            ((9, 12, 13), 110),
            ((9, 12, 13), 112),
            ((12, 13, 14), 100),
            ((9, 10, 13), 120),
        ):
            figures = KindFigures({}, 1, 1.0)
            for cost in costs:
                figures.add("GET, If-Match: 200", cost, 10.0)
            figures.instructions = {"GET": 100.0, "GET, If-Match: 200": float(counted)}
            kinds = [kind for kind in KINDS if kind.name in figures.instructions and kind.name != "GET"]
            verdicts.append(figures.table(kinds).splitlines()[-1].split(" | ")[6:8])
        self.assertEqual(
            verdicts,
            [
                ["met by bytecode", "110 (1.10x)"],
                ["**missed**", "112 (1.12x)"],
                ["**missed**", "100 (1.00x)"],
                ["met", "120 (1.20x)"],
            ],
        )

    def test_instructions_are_counted_from_one_moment_to_another(self) -> None:
        """Also those of functions that already run, as the loop of a reactor; not the work of C functions."""
        if not instructions.CAN_COUNT:
            raise SkipTest("this Python does not report every instruction")
        counter = InstructionCounter()
        before = sys.gettrace()
        try:
            counter.start()
            empty = counter.stop()
            counter.start()
            sum(range(10_000))
            native = counter.stop()
            counter.start()
            for _ in range(1000):
                pass
            looped = counter.stop()
        finally:
            sys.settrace(before)
        self.assertLess(native - empty, 30)
        self.assertGreater(looped - empty, 1000)
        self.assertLess(looped - empty, 5000)

    def test_kinds_are_compared_with_kinds(self) -> None:
        """Names are unique, and each kind has a status for each of its requests."""
        names = [kind.name for kind in KINDS]
        self.assertEqual(len(set(names)), len(names))
        for kind in KINDS:
            self.assertIn(kind.beside, names)
            self.assertEqual(len(kind.statuses), len(kind.requests), kind.name)

    def test_lengths_are_right_for_every_key(self) -> None:
        """The number of a key has as many bytes as its place in the body."""
        for kind in KINDS:
            for request in kind.requests:
                head, _, body = request.replace(b"{n}", b"123").partition(b"\r\n\r\n")
                lengths = [line for line in head.split(b"\r\n") if line.startswith(b"Content-Length: ")]
                self.assertEqual(lengths, [b"Content-Length: %d" % len(body)] if body else [], kind.name)


class PageTests(SynchronousTestCase):
    """Tables on their way from a module's output to the page."""

    OUTPUT = "CPython\n\n| a | 1 |\n| --- | ---: |\n| x | 2 |\n\n| b | 3 |\n\n| a | 4 |\nwords\n"
    PAGE = (
        "words\n\n<!-- bench.m -->\n| a | old |\n| old | old |\n\n<!-- bench.other -->\n| a | kept |\n\n"
        "<!-- bench.m -->\n| a | second |\n\n| a | by hand |\n\n<!-- bench.m -->\n| c | missing |\nend\n"
    )

    def test_tables_behind_a_modules_comment_are_renewed(self) -> None:
        """By titles, equal ones in their order; all else stays, and what is missing is named."""
        changed, missing = page.renewed(self.PAGE, "m", self.OUTPUT)
        expected = self.PAGE.replace("| a | old |\n| old | old |", "| a | 1 |\n| --- | ---: |\n| x | 2 |")
        self.assertEqual(changed, expected.replace("| a | second |", "| a | 4 |"))
        self.assertEqual(missing, ["c"])
        self.assertEqual(page.renewed(changed, "m", self.OUTPUT), (changed, ["c"]))

    def test_the_paragraph_about_the_run_is_replaced(self) -> None:
        """It ends at the first empty line; a page without its comment stays as it is."""
        text = "a\n\n<!-- bench.run -->\nold\nwords\n\nb\n"
        self.assertEqual(page.with_run(text, "new"), "a\n\n<!-- bench.run -->\nnew\n\nb\n")
        self.assertEqual(page.with_run("a\n", "new"), "a\n")

    def test_every_comment_of_the_page_names_a_module_that_is_run(self) -> None:
        """And each has a table behind it, so that nothing is left behind by a rename."""
        text = page.PAGE.read_text(encoding="utf-8")
        found = dict.fromkeys(re.findall(r"<!-- bench\.(\w+) -->\n(\|)?", text))
        modules = {part.module for part in page.PARTS}
        self.assertEqual({name for name, bar in found if bar}, modules)
        self.assertEqual({name for name, bar in found if not bar}, {page.RUN})


class BuildTests(SynchronousTestCase):
    """How a Python was built."""

    def told(self, arguments: str, flags: str, maps: str) -> str:
        """Return the words for such a configuration."""
        variables = {"CONFIG_ARGS": arguments, "PGO_PROF_USE_FLAG": flags}
        file = FilePath(self.mktemp())
        file.setContent(maps.encode())
        with (
            patch.object(builds.sysconfig, "get_config_var", variables.get),
            patch.object(builds.platform, "python_implementation", lambda: "CPython"),
            patch.object(builds.platform, "python_compiler", lambda: "GCC 1"),
            patch.object(builds, "MAPS", Path(file.path)),
        ):
            return builds.build()

    def test_words(self) -> None:
        """Options are found, "no" needs a configuration that tells, and all else is unknown."""
        for arguments, flags, maps, expected in [
            ("'--enable-optimizations' '--with-lto'", "-f", "", "PGO: yes, LTO: yes, libpython: static"),
            ("'--with-lto=full'", "-f", "/libpython3.so", "PGO: no, LTO: yes, libpython: shared"),
            ("'--with-lto=no'", "-f", "", "PGO: no, LTO: no, libpython: static"),
            ("'--enable-shared'", "", "", "PGO: unknown, LTO: unknown, libpython: static"),
        ]:
            self.assertEqual(self.told(arguments, flags, maps), f"GCC 1, {expected}")


class InterpretersTests(SynchronousTestCase):
    """Which Pythons take part."""

    def setUp(self) -> None:
        """Keep environments in a folder of this test."""
        self.folder = Path(self.mktemp())
        self.patch(interpreters, "ENVIRONMENTS", self.folder)
        self.lines: list[str] = []
        told = patch.object(interpreters, "print", lambda line, **_: self.lines.append(line), create=True)
        told.start()
        self.addCleanup(told.stop)

    def test_versions_at_one_place_all_take_part(self) -> None:
        """A distribution keeps its versions in one prefix; one found under two names is taken once."""
        told = {
            name: {"kind": "CPython", "version": [3, minor, 1], "home": "/usr"}
            for name, minor in [("/a/python3", 11), ("/a/python3.11", 11), ("/a/python3.14", 14)]
        }
        self.patch(interpreters, "facts", told.__getitem__)
        self.patch(interpreters, "environment", lambda python, name: python)
        names = [one.name for one in interpreters.interpreters(list(told))]
        self.assertEqual(names, ["CPython 3.11.1, /usr", "CPython 3.14.1, /usr"])

    def test_one_without_an_environment_keeps_the_blocking_client(self) -> None:
        """Its line says why, and nothing is left that a later run would take for an environment."""

        def run(command: list[str], **_: Any) -> None:
            if "venv" in command:
                binary = Path(command[-1]) / "bin" / "python"
                binary.parent.mkdir(parents=True)
                binary.touch()
            else:
                raise subprocess.CalledProcessError(1, "pip")

        told = {"kind": "PyPy", "version": [3, 11, 1], "home": "/opt"}
        self.patch(interpreters, "facts", lambda python: told)
        self.patch(interpreters.subprocess, "run", run)
        for _ in range(2):
            (one,) = interpreters.interpreters(["/opt/bin/pypy3"])
            self.assertEqual(one, ("PyPy 3.11.1, /opt", "/opt/bin/pypy3", False))
        self.assertEqual(list(self.folder.iterdir()), [])
        self.assertIn("PyPy 3.11.1, /opt only runs the blocking client", self.lines[-1])
        self.assertIn("'pip'", self.lines[-1])

    def test_old_ones_are_dropped_but_for_pypy(self) -> None:
        """The source of the SDK runs on PyPy 3.9."""
        for kind, expected in [("CPython", None), ("PyPy", ("PyPy 3.9.1, /usr", "/x", False))]:
            told = {"kind": kind, "version": [3, 9, 1], "home": "/usr"}
            self.assertEqual(interpreters.interpreter("/x", told), expected)

    def test_only_pypy_warms_up(self) -> None:
        """CPython is as fast at once as later."""
        kinds = [interpreters.Interpreter(f"{kind} 3.11.1, /usr", "/x", True) for kind in ("CPython", "PyPy")]
        self.assertEqual([one.compiles for one in kinds], [False, True])

    def test_the_pythons_of_usr_are_found_in_order(self) -> None:
        """By number, without the programs beside them."""
        self.folder.mkdir()
        for name in ("python3.9", "python3.14", "python3.11-config", "python3.11"):
            (self.folder / name).touch()
        self.patch(interpreters, "SYSTEM", self.folder)
        names = [Path(path).name for path in interpreters.found() if str(self.folder) in path]
        self.assertEqual(names, ["python3.9", "python3.11", "python3.14"])
