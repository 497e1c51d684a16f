"""Pictures of what imports what, drawn from the imports: ``python -m tests.tooling.picture`` writes them into
docs/architecture.md, and a test holds the page to them.

An arrow points from who imports to who is imported. One that only shortens a way along other arrows is left
out, so all ways down can be read, and few lines are drawn.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.tooling.shape import Graph, Shape, tangled
from tests.tooling.sources import ROOT

PAGE = ROOT / "docs" / "architecture.md"
BEGIN = "<!-- picture of {name}: python -m tests.tooling.picture -->\n"
END = "<!-- end of the picture -->\n"
CORE = ("couchbase.protocol",)
LEAVES = ("couchbase.errorbase", "couchbase.exceptions", "couchbase.result", "couchbase.user_constants")


def package_of(module: str) -> str | None:
    """Return the room of a module in the picture of the packages."""
    if module in LEAVES:
        return "couchbase.exceptions, result"
    for name in CORE:
        if module == name or module.startswith(name + "."):
            return name
    return module.split(".")[0]


def folder_of(package: str) -> Callable[[str], str | None]:
    """Return what gives the folder of a module; ``None`` beside the folders and in other packages."""
    folders = {path.name for path in (ROOT / package).iterdir() if (path / "__init__.py").exists()}

    def folder(module: str) -> str | None:
        first, _, rest = module.partition(".")
        name = rest.split(".")[0]
        return name if first == package and name in folders else None

    return folder


def between(graph: Graph, room_of: Callable[[str], str | None]) -> Graph:
    """Return which room imports which."""
    rooms: Graph = defaultdict(set)
    for module, targets in graph.items():
        room = room_of(module)
        if room is None:
            continue
        rooms[room] |= {other for one in targets if (other := room_of(one)) is not None and other != room}
    return dict(rooms)


def reduced(graph: Graph) -> Graph:
    """Return the graph without arrows that only shorten a way along other arrows.

    :raises ValueError: the graph has a circle.
    """
    circles = tangled(graph)
    if circles:
        raise ValueError(f"rooms that import each other: {circles}")
    below: dict[str, set[str]] = {}

    def all_below(room: str) -> set[str]:
        if room not in below:
            below[room] = {deeper for one in graph[room] for deeper in (one, *all_below(one))}
        return below[room]

    return {
        room: {one for one in targets if not any(one in all_below(other) for other in targets - {one})}
        for room, targets in graph.items()
    }


def mermaid(graph: Graph) -> str:
    """Return a flow chart of the graph, in the same order each time."""
    names = {room: f"r{number}" for number, room in enumerate(sorted(graph))}
    lines = ["```mermaid", "flowchart TD"]
    lines += [f'    {name}["{room}"]' for room, name in names.items()]
    lines += [
        f"    {names[room]} --> {names[target]}" for room in sorted(graph) for target in sorted(graph[room])
    ]
    return "\n".join([*lines, "```"]) + "\n"


def pictures(shape: Shape) -> Iterator[tuple[str, str]]:
    """Return the name and the text of each picture."""
    graph = shape.graph()
    yield "the packages", mermaid(reduced(between(graph, package_of)))
    for package in ("gateway", "couchnode"):
        yield f"{package}/", mermaid(reduced(between(graph, folder_of(package))))


def drawn(page: str, shape: Shape) -> str:
    """Return the page with its pictures redrawn.

    :raises ValueError: a picture has no place in it.
    """
    for name, picture in pictures(shape):
        begin = BEGIN.format(name=name)
        before, found, after = page.partition(begin)
        if not found:
            raise ValueError(f"no place for the picture of {name}: expected the line {begin.strip()}")
        page = before + begin + picture + END + after.partition(END)[2]
    return page


def main(path: Path = PAGE) -> None:
    """Write the pictures into the page."""
    path.write_text(drawn(path.read_text("utf-8"), Shape()), "utf-8")


if __name__ == "__main__":
    main()
