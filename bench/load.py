"""An HTTP load for a number of seconds, and its results: by wrk if it is installed, else by bench.httpload.

wrk costs a tenth of what Python does, so that on two cores the server is what is measured.
"""

from __future__ import annotations

import json
import resource
import shutil
import ssl
import subprocess
import tempfile
from typing import NamedTuple

from bench.harness import OWN_PYTHON

KEYS = 1000
DOCUMENT = '{"text":"' + "x" * (1024 - 11) + '"}'
"""1 KiB of JSON."""

OVERDUE_SECONDS = 60

# One thread asks for the next request each time; all of them are made before the clock starts. The figures
# come from wrk's own variables, with more digits than it prints. wrk counts a status above 399 as an error.
SCRIPT = """
local requests = {}
local sent = 0
local body = '%(document)s'
local headers = {["Content-Type"] = "application/json"}

local function add(method, path)
    local is_put = method == "PUT"
    requests[#requests + 1] = wrk.format(method, path, is_put and headers or nil, is_put and body or nil)
end

function init(args)
%(adds)s
end

function request()
    sent = sent %% #requests + 1
    return requests[sent]
end

function done(summary, latency, requests)
    local errors = summary.errors
    io.write(string.format(
        '\\nfound {"requests":%%d,"seconds":%%.6f,"p50_us":%%.1f,"p99_us":%%.1f,"errors":%%d}\\n',
        summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
        errors.connect + errors.read + errors.write + errors.status + errors.timeout
    ))
end
"""


class NoAnswerError(RuntimeError):
    """No request was answered while the load lasted, and none failed."""


class Load(NamedTuple):
    """The load on a server."""

    url: str
    """Without a path."""
    get: str
    """Path of a GET; ``{n}`` becomes 0 to 999 in turn."""
    put: str
    """Path of a PUT, likewise."""
    puts: int
    """Number of PUTs among ten requests; the others are GETs."""
    connections: int
    seconds: int


class Outcome(NamedTuple):
    """Results of a load."""

    requests: int
    seconds: float
    p50_us: float
    p99_us: float
    cpu_seconds: float
    """CPU of the load generator."""

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


def requests_of(load: Load) -> list[tuple[str, str, str]]:
    """Return the requests (method, path, body) of a loop; each key is stored once in ten rounds."""
    return [
        ("PUT", load.put.replace("{n}", str(key)), DOCUMENT)
        if (key + turn) % 10 < load.puts
        else ("GET", load.get.replace("{n}", str(key)), "")
        for turn in (range(10) if 0 < load.puts < 10 else (0,))
        for key in range(KEYS)
    ]


def any_certificate() -> ssl.SSLContext:
    """Return a client's context that verifies nothing, as wrk does."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def generator() -> str:
    """Return the name of the load generator."""
    return "wrk" if shutil.which("wrk") else "bench.httpload (no wrk here: apt-get install wrk)"


def run(load: Load) -> Outcome:
    """Load a server.

    :raises NoAnswerError: there was no answer in time, as on a busy machine that shakes hands for TLS.
    :raises RuntimeError: an answer was no success, or a connection broke.
    """
    before = _children_cpu()
    found = _run_wrk(load) if shutil.which("wrk") else _run_own(load)
    return Outcome(
        int(found["requests"]),
        found["seconds"],
        found["p50_us"],
        found["p99_us"],
        _children_cpu() - before,
    )


def _run_wrk(load: Load) -> dict[str, float]:
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_script(load))
        script.flush()
        output = _output(
            ["wrk", "-t1", f"-c{load.connections}", f"-d{load.seconds}s", "-s", script.name, load.url], load
        )
    told = [line for line in output.splitlines() if line.startswith("found ")]
    if not told:
        raise RuntimeError(f"wrk printed no figures:\n{output}")
    found: dict[str, float] = json.loads(told[0][len("found ") :])
    if not found["requests"] and not found["errors"]:
        raise NoAnswerError(f"{load.url} answered nothing in {load.seconds} s")
    if found["errors"]:
        raise RuntimeError(f"not every answer of {load.url} was a success:\n{output}")
    return found


def _script(load: Load) -> str:
    adds = "\n".join(f'    add("{method}", "{path}")' for method, path, _ in requests_of(load))
    return SCRIPT % {"document": DOCUMENT, "adds": adds}


def _run_own(load: Load) -> dict[str, float]:
    output = _output([OWN_PYTHON, "-m", "bench.httpload", *(str(field) for field in load)], load)
    found: dict[str, float] = json.loads(output)
    return found


def _output(command: list[str], load: Load) -> str:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        timeout=load.seconds + OVERDUE_SECONDS,
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with status {done.returncode}:\n{done.stdout}")
    return done.stdout


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
