"""GET of a 1 KiB document from one process, and from several workers behind the same port.

    python -m bench.workers [WORKERS] [CONNECTIONS] [SECONDS] [ROUNDS]

The load generator is wrk, in one thread: it has to be faster than the gateway, and needs a core of its own.
Each row covers the gateway's processes, including the embedded node's: their total CPU time, the share of one
core that the busiest of them used, the connections of the worker with the fewest in the middle of the load
(100: its fair share), and the average private memory of a process (pages that it shares with no other). Linux
only.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.harness import HERE, OWN_PYTHON, Samples, Server, machine
from bench.processes import cpu_seconds, family, own_cpu_seconds

USER, PASSWORD = "bench", "bench-password"  # of the node that bench.serve runs
DOCUMENT = "/v1/buckets/default/documents/bench"
BODY = b'"' + b"x" * 1022 + b'"'
BASE = "one process, node in another"


@contextmanager
def gateway(workers: int, *arguments: str) -> Iterator[tuple[int, str]]:
    """Run ``twistd couchgateway``; yields its process id and URL once it serves.

    :param workers: 0 for none.
    """
    command = [OWN_PYTHON, "-c", "from twisted.scripts.twistd import run; run()", "--nodaemon", "--pidfile="]
    listen = ["--listen", "tcp:0:interface=127.0.0.1"] + (["--workers", str(workers)] if workers else [])
    with subprocess.Popen(
        [*command, "couchgateway", *listen, *arguments], cwd=HERE.parent, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            log = ""
            while "listens on" not in log or len(re.findall(r"worker \d+ is ready", log)) < workers:
                line = process.stdout.readline()
                if not line:
                    raise RuntimeError(log)
                log += line
            url = log.partition("listens on ")[2].split()[0]
            wait_until_ready(url)
            yield process.pid, url
        finally:
            process.terminate()


def wait_until_ready(url: str) -> None:
    """Wait for the node, at most half a minute."""
    for _ in range(300):
        try:
            urllib.request.urlopen(url + "/ready").close()
            return
        except urllib.error.HTTPError:
            time.sleep(0.1)
    raise RuntimeError(f"{url} does not get ready")


def load(pid: int, url: str, connections: int, seconds: int) -> dict[str, float]:
    """Return the figures of one round."""
    processes = family(pid)
    before, own_before = cpu_seconds(pid), [own_cpu_seconds(one) for one in processes]
    idle = {one: sockets(one) for one in processes}
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", url + DOCUMENT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as wrk:
        time.sleep(seconds / 2)
        has = {one: sockets(one) - idle[one] for one in processes}
        private = [private_bytes(one) for one in processes]
        output, _ = wrk.communicate()
    if wrk.returncode:
        raise RuntimeError(output)
    used = cpu_seconds(pid) - before
    serving = [count for one, count in has.items() if one != pid] or [connections]
    busiest = max(own_cpu_seconds(one) - own for one, own in zip(processes, own_before, strict=True))
    if "Non-2xx" in output or "Socket errors" in output:
        raise RuntimeError(output)
    count = int(re.search(r"(\d+) requests in", output)[1])  # type: ignore[index]
    value, unit = re.search(r" 99%\s+([\d.]+)(us|ms|s)", output).groups()  # type: ignore[union-attr]
    return {
        "requests a second": float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1]),  # type: ignore[index]
        "99% within ms": float(value) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit],
        "CPU us a request": used / count * 1e6,
        "busiest, % of a core": busiest / seconds * 100,
        "fewest connections, % of its share": min(serving) / (connections / len(serving)) * 100,
        "MiB a process": sum(private) / len(private) / 2**20,
    }


def sockets(pid: int) -> int:
    """Return how many sockets a process has open."""
    return sum(os.readlink(file).startswith("socket:") for file in Path(f"/proc/{pid}/fd").iterdir())


def private_bytes(pid: int) -> int:
    """Return the memory that a process shares with no other."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(size) for size in re.findall(r"^Private_\w+:\s+(\d+) kB", text, re.MULTILINE)) * 1024


def main() -> None:
    """Measure, and print a table."""
    if shutil.which("wrk") is None:
        print("wrk is not installed, so workers are not measured")
        return
    workers, connections, seconds, rounds = (
        int(sys.argv[at]) if len(sys.argv) > at else default for at, default in enumerate((2, 32, 4, 5), 1)
    )
    samples = Samples()
    with ExitStack() as stack:
        node = stack.enter_context(Server("node"))
        password = stack.enter_context(tempfile.NamedTemporaryFile("w"))
        password.write(PASSWORD + "\n")
        password.flush()
        account = ["--auth", "none", "--user", USER, "--password-file", password.name]
        cluster = ["--cluster", node.address, *account]
        running = {
            name: stack.enter_context(gateway(count, *arguments))
            for name, count, arguments in (
                (BASE, 0, cluster),
                (f"{workers} workers, node in another", workers, cluster),
                ("one process, node in it", 0, ["--ephemeral"]),
                (f"{workers} workers, node in the supervisor", workers, ["--ephemeral"]),
            )
        }
        for _, url in running.values():
            put = urllib.request.Request(
                url + DOCUMENT, BODY, {"Content-Type": "application/json"}, method="PUT"
            )
            urllib.request.urlopen(put).close()
        for _ in range(rounds):
            for name, (pid, url) in running.items():
                for column, figure in load(pid, url, connections, seconds).items():
                    samples.add(name, column, figure)
    print(f"{machine()}; {connections} connections, {rounds} rounds of {seconds} s, medians\n")
    print(samples.table("GET of 1 KiB", base=BASE))


if __name__ == "__main__":
    main()
