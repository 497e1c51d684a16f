"""The programs of examples/languages, and the runtimes that run them.

``make judges`` fetches the runtimes that a machine of developers may lack.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from tests.judges.programs import ROOT

PROGRAMS = ROOT / "examples" / "languages"
FETCHED = ROOT / "build" / "judges" / "languages"
"""What ``make judges`` fetches and builds for them."""
DEBIAN = FETCHED / "debian"
DOTNET = FETCHED / "dotnet" / "dotnetcore2" / "bin"
HTTPX = ROOT / "build" / "judges" / "http2" / "httpx" / "bin" / "python"
TYPESCRIPT = ROOT / "build" / "judges" / "generated" / "typescript" / "node_modules"

_ASSEMBLIES = (
    *("System.Private.CoreLib", "System.Runtime", "System.Runtime.Extensions", "System.Private.Uri"),
    *("System.Net.Http", "System.Net.Primitives", "System.Text.Json", "System.Text.Encodings.Web"),
    *("System.Collections", "System.Linq", "System.Console", "System.Memory", "netstandard"),
)


class Command(NamedTuple):
    """One command of a program."""

    words: list[str]
    variables: Mapping[str, str] = {}
    """Additions to the environment."""


def _found(name: str) -> Path | None:
    """Return a program: the fetched one, or an installed one."""
    fetched = DEBIAN / "usr" / "bin" / name
    installed = shutil.which(name)
    return fetched if fetched.exists() else Path(installed) if installed else None


def _one(pattern: str) -> Path:
    """Return the one path below the fetched packages that a pattern matches."""
    return next(DEBIAN.glob(pattern), DEBIAN / pattern)


def _with_libraries(**variables: object) -> dict[str, str]:
    """Return the environment of a program out of a package that was only unpacked."""
    folders = ":".join(str(path) for path in DEBIAN.glob("usr/lib/*-linux-gnu*"))
    return {"LD_LIBRARY_PATH": folders, **{name: str(value) for name, value in variables.items()}}


def shell(url: str) -> list[Command]:
    """Bash; curl is the machine's."""
    path = f"{DEBIAN / 'usr' / 'bin'}:{os.environ['PATH']}"
    return [Command(["bash", str(PROGRAMS / "shell" / "tickets.sh"), url], _with_libraries(PATH=path))]


def node(url: str) -> list[Command]:
    """Node.js."""
    return [Command(["node", str(PROGRAMS / "node" / "tickets.mjs"), url])]


def python(url: str) -> list[Command]:
    """CPython with httpx."""
    return [Command([str(HTTPX), str(PROGRAMS / "python" / "tickets.py"), url])]


def typescript(url: str) -> list[Command]:
    """Types of the gateway's document, the compiler, and Node.js; in the folder of the test."""
    base = url.removesuffix("/v1/buckets/default")
    source = PROGRAMS / "typescript"
    files = [str(source / name) for name in ("tickets.ts", "tsconfig.json", "package.json")]
    return [
        Command(["cp", *files, "."]),
        Command(["ln", "-s", str(TYPESCRIPT), "node_modules"]),
        Command(["node_modules/.bin/openapi-typescript", f"{base}/openapi.json", "--output", "gateway.ts"]),
        Command(["node_modules/.bin/tsc"]),
        Command(["node", "built/tickets.js", base]),
    ]


def php(url: str) -> list[Command]:
    """PHP with its curl extension."""
    program = str(PROGRAMS / "php" / "tickets.php")
    fetched = DEBIAN / "usr" / "bin" / "php8.2"
    extension = _one("usr/lib/php/*/curl.so")
    options = ["-n", "-d", f"extension_dir={extension.parent}", "-d", "extension=curl"]
    return [Command([str(fetched), *options, program, url], _with_libraries())]


def ruby(url: str) -> list[Command]:
    """Ruby."""
    program = str(PROGRAMS / "ruby" / "tickets.rb")
    fetched = DEBIAN / "usr" / "bin" / "ruby3.1"
    folders = ["usr/lib/ruby/3.1.0", "usr/lib/*-linux-gnu/ruby/3.1.0", "usr/lib/ruby/vendor_ruby"]
    library = ":".join(str(_one(folder)) for folder in folders)
    return [Command([str(fetched), "--disable-gems", program, url], _with_libraries(RUBYLIB=library))]


def lua(url: str) -> list[Command]:
    """Lua with LuaSocket and lua-cjson."""
    program = str(PROGRAMS / "lua" / "tickets.lua")
    fetched = DEBIAN / "usr" / "bin" / "lua5.4"
    scripts = DEBIAN / "usr" / "share" / "lua" / "5.4"
    compiled = _one("usr/lib/*-linux-gnu/lua/5.4")
    paths = {"LUA_PATH": f"{scripts}/?.lua;{scripts}/?/init.lua", "LUA_CPATH": f"{compiled}/?.so"}
    return [Command([str(fetched), program, url], _with_libraries(**paths))]


def elixir(url: str) -> list[Command]:
    """Elixir with jiffy; the usual scripts start only what is installed in its usual place."""
    program = str(PROGRAMS / "elixir" / "tickets.exs")
    root = DEBIAN / "usr" / "lib" / "erlang"
    start = _one("usr/lib/erlang/erts-*/bin/erlexec")
    library = DEBIAN / "usr" / "lib" / "elixir" / "lib"
    options = ["-noshell", "-elixir_root", str(library), "-pa", *map(str, library.glob("*/ebin"))]
    words = [str(start), *options, "-s", "elixir", "start_cli", "-extra", program, url]
    return [Command(words, _with_libraries(ROOTDIR=root, BINDIR=start.parent, EMU="beam", PROGNAME="erl"))]


def go(url: str) -> list[Command]:
    """Go, built by ``make judges``."""
    return [Command([str(FETCHED / "go" / "tickets"), url])]


def rust(url: str) -> list[Command]:
    """Rust, built by ``make judges``."""
    return [Command([str(FETCHED / "rust" / "debug" / "tickets"), url])]


def java(url: str) -> list[Command]:
    """Java, compiled as it starts."""
    classpath = str(FETCHED / "java" / "*")
    return [Command(["java", "-cp", classpath, str(PROGRAMS / "java" / "Tickets.java"), url])]


def csharp(url: str) -> list[Command]:
    """C#: Mono's compiler, and the runtime of .NET Core 3.1; in the folder of the test."""
    library = DEBIAN / "usr" / "lib" / "mono" / "4.5"
    framework = next(DOTNET.glob("shared/Microsoft.NETCore.App/*"), DOTNET)
    compiler = [str(DEBIAN / "usr" / "bin" / "mono-sgen"), str(library / "mcs.exe")]
    options = ["-nologo", "-langversion:latest", "-nostdlib", "-noconfig", "-out:Tickets.dll"]
    references = [f"-r:{framework / name}.dll" for name in _ASSEMBLIES]
    mono = _with_libraries(MONO_PATH=library, MONO_CFG_DIR=DEBIAN / "etc")
    needed = {"framework": {"name": framework.parent.name, "version": framework.name}}
    configuration = json.dumps({"runtimeOptions": needed})
    # The package's files are not marked as programs; without ICU, texts are compared as bytes.
    runtime = ["sh", "-c", 'chmod +x "$0" && exec "$0" "$@"', str(DOTNET / "dotnet")]
    return [
        Command([*compiler, *options, *references, str(PROGRAMS / "csharp" / "Tickets.cs")], mono),
        Command(["sh", "-c", 'echo "$0" >Tickets.runtimeconfig.json', configuration]),
        Command([*runtime, "Tickets.dll", url], {"DOTNET_SYSTEM_GLOBALIZATION_INVARIANT": "1"}),
    ]


class Language(NamedTuple):
    """A program, and what it needs."""

    commands: Callable[[str], list[Command]]
    """From the URL of a bucket to the commands; what the last one prints counts."""
    needs: tuple[str | Path, ...]
    """Names of programs, and paths."""

    def missing(self) -> str | None:
        """Return why it cannot run, ``None`` if it can."""
        absent = [
            str(need.relative_to(ROOT)) if isinstance(need, Path) else need
            for need in self.needs
            if not (need.exists() if isinstance(need, Path) else _found(need))
        ]
        return f"not there: {', '.join(absent)} (make judges fetches it)" if absent else None


LANGUAGES = {
    "shell": Language(shell, ("bash", "curl", "jq")),
    "node": Language(node, ("node",)),
    "python": Language(python, (HTTPX,)),
    "typescript": Language(typescript, ("node", TYPESCRIPT)),
    "php": Language(php, (DEBIAN / "usr" / "bin" / "php8.2",)),
    "ruby": Language(ruby, (DEBIAN / "usr" / "bin" / "ruby3.1",)),
    "lua": Language(lua, (DEBIAN / "usr" / "bin" / "lua5.4",)),
    "elixir": Language(elixir, (DEBIAN / "usr" / "lib" / "elixir",)),
    "go": Language(go, (FETCHED / "go" / "tickets",)),
    "rust": Language(rust, (FETCHED / "rust" / "debug" / "tickets",)),
    "java": Language(java, ("java", FETCHED / "java")),
    "csharp": Language(csharp, (DEBIAN / "usr" / "lib" / "mono", DOTNET / "dotnet")),
}
"""Every language but that of browsers, by its folder."""
