"""Graphs in the notation of Mermaid as SVG, for the site: code hosts draw them themselves.

Only what the pages use is known: ``flowchart TD`` with named boxes, and ``stateDiagram-v2`` with transitions.
Boxes stand in layers, each below all that lead to it; arrows back up are dashed.
"""

from __future__ import annotations

import re
from collections import defaultdict

from tests.tooling.drawing import MARGIN, WIDTH, Drawing, width_of

HEIGHT = 30
STEP = 74

_NODE = re.compile(r'^(\w+)\["([^"]+)"\]$')
_ARROW = re.compile(r"^(\[\*\]|\w+) --> (\[\*\]|\w+)$")

Arrows = dict[str, list[str]]


def parsed(text: str) -> Arrows:
    """Return the boxes of a graph by name, with those that their arrows lead to, in their order.

    :raises ValueError: a line has a form that is not known.
    """
    names: dict[str, str] = {}
    arrows: Arrows = {}
    kind, *lines = [line.strip() for line in text.strip().splitlines()]
    if kind not in ("flowchart TD", "stateDiagram-v2"):
        raise ValueError(f"no graph that can be drawn: {kind!r}; expected flowchart TD or stateDiagram-v2")
    for line in lines:
        node, arrow = _NODE.match(line), _ARROW.match(line)
        if node:
            names[node[1]] = node[2]
            arrows.setdefault(node[2], [])
        elif arrow:
            one, other = (names.get(name, name) for name in arrow.groups())
            # Begin and end of a state's life are no states.
            if "[*]" not in (one, other):
                arrows.setdefault(one, []).append(other)
                arrows.setdefault(other, [])
            elif one == "[*]":
                arrows = {other: arrows.pop(other, []), **arrows}
        elif line:
            raise ValueError(f"no line of a graph that can be drawn: {line!r}")
    return arrows


def layers_of(arrows: Arrows) -> tuple[dict[str, int], set[tuple[str, str]]]:
    """Return the layer of each box, and the arrows that lead back to a box from which they came."""
    back: set[tuple[str, str]] = set()
    done: list[str] = []
    under_way: list[str] = []

    def visit(name: str) -> None:
        under_way.append(name)
        for other in arrows[name]:
            if other in under_way:
                back.add((name, other))
            elif other not in done:
                visit(other)
        under_way.pop()
        done.append(name)

    for name in arrows:
        if name not in done:
            visit(name)
    layer = dict.fromkeys(arrows, 0)
    for name in reversed(done):
        for other in arrows[name]:
            if (name, other) not in back:
                layer[other] = max(layer[other], layer[name] + 1)
    return layer, back


def drawn(text: str, title: str = "Graph") -> tuple[str, str]:
    """Return a graph as SVG, and its words.

    :raises ValueError: see :func:`parsed`.
    """
    arrows = parsed(text)
    layer, back = layers_of(arrows)
    words = " ".join(f"{name} leads to {', '.join(others)}." for name, others in arrows.items() if others)
    rows: dict[int, list[str]] = defaultdict(list)
    for name in arrows:
        rows[layer[name]].append(name)
    # A long arrow has a point in each layer that it crosses, beside the boxes.
    ways: list[tuple[str, list[str]]] = []
    for name, others in arrows.items():
        for other in others:
            low, high = sorted((layer[name], layer[other]))
            points = [f"{name} {other} {number}" for number in range(low + 1, high)]
            for number, point in enumerate(points, low + 1):
                rows[number].append(point)
            points = points[::-1] if (name, other) in back else points
            ways.append(("back" if (name, other) in back else "", [name, *points, other]))
    _untangle(rows, [way for _, way in ways])
    places = {
        name: (x, MARGIN + STEP * number)
        for number, row in rows.items()
        for name, x in _spread(row, arrows).items()
    }
    drawing = Drawing(title, words)
    for kind, way in ways:
        ends = [places[name] for name in way]
        up = ends[0][1] > ends[-1][1]
        first, last = (0, HEIGHT + 3) if up else (HEIGHT, -3)
        middle = [(x, y + HEIGHT / 2) for x, y in ends[1:-1]]
        drawing.curve([(ends[0][0], ends[0][1] + first), *middle, (ends[-1][0], ends[-1][1] + last)], kind)
    for name in arrows:
        x, y = places[name]
        half = width_of(name) / 2 + 10
        drawing.box(x - half, y, 2 * half, HEIGHT)
        drawing.text(x, y + 20, name)
    return drawing.svg(), words


def _untangle(rows: dict[int, list[str]], ways: list[list[str]]) -> None:
    """Order each row by the middle of what its boxes are connected with, up and down, until it settles."""
    beside: dict[str, list[str]] = defaultdict(list)
    for way in ways:
        for one, other in zip(way, way[1:], strict=False):
            beside[one].append(other)
            beside[other].append(one)
    numbers = sorted(rows)
    for _ in range(12):
        for order in (numbers, numbers[::-1]):
            for number in order:
                place = {
                    name: (index + 0.5) / len(row) for row in rows.values() for index, name in enumerate(row)
                }
                rows[number].sort(key=lambda name: _middle([place[one] for one in beside[name]], place[name]))


def _middle(places: list[float], own: float) -> float:
    return sum(places) / len(places) if places else own


def _spread(row: list[str], arrows: Arrows) -> dict[str, float]:
    """Return where the boxes and points of a row stand, from left to right, over the whole width."""
    widths = [width_of(name) + 20 if name in arrows else 10 for name in row]
    gap = (WIDTH - 2 * MARGIN - sum(widths)) / len(row)
    found, x = {}, float(MARGIN)
    for name, width in zip(row, widths, strict=True):
        found[name] = x + gap / 2 + width / 2
        x += gap + width
    return found
