"""The way in which a Python was built, as far as known: it decides a tenth or more of the CPU time."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

MAPS = Path("/proc/self/maps")


def build() -> str:
    """Return the compiler of this Python, and whether it has profile-guided and link-time optimization and
    runs from a shared library; "unknown" where its configuration does not say."""
    if platform.python_implementation() != "CPython":
        return sys.version.partition("[")[2].rstrip("]") or "unknown"
    facts = [platform.python_compiler()]
    arguments, own_flags = (
        str(sysconfig.get_config_var(name) or "") for name in ("CONFIG_ARGS", "PGO_PROF_USE_FLAG")
    )
    for option, name in (("--enable-optimizations", "PGO"), ("--with-lto", "LTO")):
        facts.append(f"{name}: {_whether(arguments, option, own_flags)}")
    facts.append(f"libpython: {_library()}")
    return ", ".join(facts)


def _whether(arguments: str, option: str, own_flags: str) -> str:
    """Return whether an option of configure was given."""
    if re.search(rf"{option}(?!=no)", arguments):
        return "yes"
    # A distribution may optimize by rules of its own, and then empties these variables.
    return "no" if arguments and own_flags else "unknown"


def _library() -> str:
    try:
        return "shared" if "libpython" in MAPS.read_text() else "static"
    except OSError:
        return "unknown"


def build_of(python: str) -> str:
    """Return version and build of another Python.

    :raises OSError, subprocess.CalledProcessError: it cannot be run.
    """
    code = (
        "import platform; from bench.builds import build;"
        "print(platform.python_implementation(), platform.python_version() + ';', build())"
    )
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run([python, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()
