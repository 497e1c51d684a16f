"""SVG from text: sequences, bars and boxes, legible on light and dark pages, with words as the alternative.

A picture is a card with a ground of its own, whose colors follow the reader's preference. Nothing here knows
what is drawn; ``tests.tooling.figures`` does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WIDTH = 760
MARGIN = 16
SIZE = 13
LINE = 18

_STYLE = """
.ground { fill: #ffffff; stroke: #c9d3dc; }
.box { fill: #e8f1f6; stroke: #3d6b85; }
.strong { fill: #cfe6d6; stroke: #2f6b45; }
.note { fill: #fdf3d8; stroke: #94762a; }
.bar { fill: #3d7ea6; }
.line { fill: none; stroke: #31495a; stroke-width: 1.5; }
.life { stroke: #9fb0bd; stroke-dasharray: 3 4; }
.back { stroke-dasharray: 6 4; }
.lost { stroke: #b3261e; }
.head { fill: #31495a; }
text { fill: #17242e; }
text.faint { fill: #4d5f6c; }
text.bad { fill: #b3261e; }
text.title { font-weight: 600; }
@media (prefers-color-scheme: dark) {
.ground { fill: #16202a; stroke: #34454f; }
.box { fill: #1f3746; stroke: #7fb2cf; }
.strong { fill: #1e3d2a; stroke: #7cc396; }
.note { fill: #3b3216; stroke: #d0b056; }
.bar { fill: #6fb1d8; }
.line { stroke: #b8c9d4; }
.life { stroke: #5a6f7d; }
.lost { stroke: #ff9a8f; }
.head { fill: #b8c9d4; }
text { fill: #e8eff4; }
text.faint { fill: #a9bac5; }
text.bad { fill: #ff9a8f; }
}
"""

_SAID = re.compile(r"^(?P<one>[^>]+?) (?P<kind>->|-->|-x) (?P<other>[^:]+): (?P<words>.+)$")
_NOTED = re.compile(r"^@ (?P<one>[^:]+): (?P<words>.+)$")


def width_of(text: str, size: float = SIZE) -> float:
    """Return about how wide a text is, in pixels; fonts differ, so it is rather too much."""
    return sum(0.32 if letter in "iljft.,:;'|!() " else 0.62 for letter in text) * size


class Drawing:
    """An SVG that grows downwards.

    :param title: what it shows, in a few words.
    :param words: the same in full, for who does not see it.
    """

    def __init__(self, title: str, words: str) -> None:
        self._title = title
        self._words = words
        self._parts: list[str] = []
        self.bottom = float(MARGIN)

    def reach(self, y: float) -> None:
        """Make the picture at least this high."""
        self.bottom = max(self.bottom, y)

    def box(self, x: float, y: float, width: float, height: float, kind: str = "box") -> None:
        """Draw a rectangle."""
        self._parts.append(
            f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="5"/>'
        )
        self.reach(y + height)

    def text(
        self, x: float, y: float, words: str, kind: str = "", anchor: str = "middle", size: float = SIZE
    ) -> None:
        """Write one line; ``y`` is its base."""
        name = f' class="{kind}"' if kind else ""
        end = f' text-anchor="{anchor}"' if anchor != "start" else ""
        big = f' font-size="{size:g}"' if size != SIZE else ""
        self._parts.append(f'<text{name} x="{x:g}" y="{y:g}"{end}{big}>{escape(words, quote=False)}</text>')
        self.reach(y + 4)

    def label(self, x: float, y: float, words: str, kind: str = "") -> None:
        """Write a line in the middle of ``x``, on the ground's color, within the picture."""
        half = width_of(words, 12.5) / 2 + 3
        x = min(max(x, MARGIN + half), WIDTH - MARGIN - half)
        self._parts.append(
            f'<rect class="ground" stroke-width="0" x="{x - half:g}" y="{y - 12:g}" width="{2 * half:g}" '
            'height="13"/>'
        )
        self.text(x, y, words, kind, size=12.5)

    def line(self, points: Sequence[tuple[float, float]], kind: str = "", head: bool = False) -> None:
        """Draw a line through points, with the head of an arrow at its end if wanted."""
        path = "M" + " L".join(f"{x:g} {y:g}" for x, y in points)
        end = ' marker-end="url(#head)"' if head else ""
        name = f"line {kind}".rstrip()
        self._parts.append(f'<path class="{name}" d="{path}"{end}/>')
        self.reach(max(y for _, y in points))

    def curve(self, points: Sequence[tuple[float, float]], kind: str = "") -> None:
        """Draw a line with the head of an arrow that leaves and reaches each of its points vertically."""
        path = f"M{points[0][0]:g} {points[0][1]:g}"
        for (x, y), (to_x, to_y) in zip(points, points[1:], strict=False):
            middle = (y + to_y) / 2
            path += f" C{x:g} {middle:g} {to_x:g} {middle:g} {to_x:g} {to_y:g}"
        name = f"line {kind}".rstrip()
        self._parts.append(f'<path class="{name}" d="{path}" marker-end="url(#head)"/>')
        self.reach(max(y for _, y in points))

    def svg(self) -> str:
        """Return the file."""
        height = self.bottom + MARGIN
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" '
                f'height="{height:g}" role="img" aria-labelledby="title words" '
                f'font-family="system-ui, -apple-system, Segoe UI, Roboto, sans-serif" font-size="{SIZE}">',
                f'<title id="title">{escape(self._title, quote=False)}</title>',
                f'<desc id="words">{escape(self._words, quote=False)}</desc>',
                f"<style>{_STYLE}</style>",
                '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" '
                'markerHeight="8" orient="auto-start-reverse"><path class="head" d="M0 0 L8 4 L0 8 z"/>'
                "</marker></defs>",
                f'<rect class="ground" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1:g}" rx="8"/>',
                *self._parts,
                "</svg>\n",
            ]
        )


def sequence(title: str, text: str) -> str:
    """Draw who sends what to whom, from top to bottom.

    :param text: the first line names the lanes, with ``|`` between them. Then one line a step:
        ``a -> b: words``; ``a --> b: words`` for an answer; ``a -x b: words`` for a loss;
        ``@ a: words`` for what a does.
    :raises ValueError: a line has none of these forms, or names no lane.
    """
    first, *steps = text.strip().splitlines()
    lanes = [name.strip() for name in first.split("|")]
    drawing = Drawing(title, f"Between {', '.join(lanes)}. " + " ".join(f"{step.strip()}." for step in steps))
    room = (WIDTH - 2 * MARGIN) / len(lanes)
    places = {name: MARGIN + room * (number + 0.5) for number, name in enumerate(lanes)}
    rows = [_parsed(step.strip(), places) for step in steps]
    end = MARGIN + 44 + 36 * len(rows)
    for x in places.values():
        drawing.line([(x, MARGIN + 28), (x, end)], "life")
    for name, x in places.items():
        half = min(room - 12, 132) / 2
        drawing.box(x - half, MARGIN, 2 * half, 28)
        drawing.text(x, MARGIN + 19, name, "title")
    for number, (one, kind, other, words) in enumerate(rows):
        y = MARGIN + 64 + 36 * number
        here, there = places[one], places[other]
        if kind == "@":
            half = width_of(words, 12.5) / 2 + 9
            x = min(max(here, MARGIN + half), WIDTH - MARGIN - half)
            drawing.box(x - half, y - 19, 2 * half, 25, "note")
            drawing.text(x, y - 2, words, size=12.5)
            continue
        gap = 3 if there > here else -3
        drawing.line([(here, y), (there - gap, y)], {"-->": "back", "-x": "lost"}.get(kind, ""), head=True)
        drawing.label((here + there) / 2, y - 6, words, "bad" if kind == "-x" else "")
    drawing.reach(end)
    return drawing.svg()


def _parsed(step: str, places: dict[str, float]) -> tuple[str, str, str, str]:
    said, noted = _SAID.match(step), _NOTED.match(step)
    if said:
        found = said["one"], said["kind"], said["other"], said["words"]
    elif noted:
        found = noted["one"], "@", noted["one"], noted["words"]
    else:
        raise ValueError(f"no step: {step!r}; expected 'a -> b: words' or '@ a: words'")
    unknown = {found[0], found[2]} - set(places)
    if unknown:
        raise ValueError(f"no lane {', '.join(sorted(unknown))} in {step!r}: there are {', '.join(places)}")
    return found


class Bar(NamedTuple):
    """One row of a chart."""

    name: str
    share: float
    """In percent."""
    figure: str
    """Its value as it is written beside it."""


def bars(title: str, unit: str, rows: Sequence[Bar]) -> str:
    """Draw rows as horizontal bars, each with its name before it and its value behind."""
    words = "; ".join(f"{row.name}: {row.figure} {unit} ({row.share:g}%)" for row in rows)
    drawing = Drawing(title, words + ".")
    left = MARGIN + max(width_of(row.name) for row in rows) + 10
    scale = (WIDTH - MARGIN - left - 130) / max(row.share for row in rows)
    for number, row in enumerate(rows):
        y = MARGIN + 24 * number
        drawing.text(left - 8, y + 15, row.name, anchor="end")
        drawing.box(left, y + 2, max(row.share * scale, 1), 17, "bar")
        drawing.text(
            left + row.share * scale + 6, y + 15, f"{row.figure} {unit}, {row.share:g}%", "faint", "start"
        )
    return drawing.svg()


class Panel(NamedTuple):
    """One column of boxes, from top to bottom, each connected with the next."""

    name: str
    boxes: Sequence[str]
    """Lines with `` / `` between them; one that begins with ``*`` is what this project runs."""
    words: str


def panels(title: str, columns: Sequence[Panel]) -> str:
    """Draw columns beside each other, with their names above and a sentence in lines below."""
    told = ""
    for one in columns:
        boxes = [box.lstrip("*").replace(" / ", ", ") for box in one.boxes]
        told += f"{one.name}: {', then '.join(boxes)}. {one.words} "
    drawing = Drawing(title, told.rstrip())
    room = (WIDTH - 2 * MARGIN) / len(columns)
    most = max(len(one.boxes) for one in columns)
    for number, column in enumerate(columns):
        x = MARGIN + room * (number + 0.5)
        drawing.text(x, MARGIN + 14, column.name, "title")
        for place, box in enumerate(column.boxes):
            lines = box.lstrip("*").split(" / ")
            y = MARGIN + 28 + 82 * place
            if place:
                drawing.line([(x, y - 28), (x, y - 3)], head=True)
            drawing.box(x - room / 2 + 12, y, room - 24, 54, "strong" if box.startswith("*") else "box")
            first = y + 27 - 9 * (len(lines) - 1) + 5
            for row, line in enumerate(lines):
                drawing.text(x, first + LINE * row, line, size=12.5 if row else SIZE)
        for row, line in enumerate(wrapped(column.words, room - 24)):
            drawing.text(x, MARGIN + 28 + 82 * most + LINE * row, line, "faint", size=12.5)
    return drawing.svg()


def wrapped(words: str, width: float) -> list[str]:
    """Return a text in lines that are no wider than this."""
    lines = [""]
    for word in words.split():
        longer = f"{lines[-1]} {word}".strip()
        if width_of(longer, 12.5) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
