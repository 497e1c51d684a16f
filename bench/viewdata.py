"""Documents and design documents for the measurements of views."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Document = tuple[str, bytes]

ROWS_A_DOCUMENT = 100
UPDATED = 1000
BEERS_A_BREWERY = 4

# Nothing is indexed until a query asks: otherwise an update in the background would be measured as well.
OPTIONS = {"updateMinChanges": 0}

BREWERY_BEERS = """function (doc, meta) {
  switch (doc.type) {
    case "brewery": emit([meta.id]); break;
    case "beer": if (doc.brewery_id) { emit([doc.brewery_id, meta.id]); } break;
  }
}"""

BY_LOCATION = """function (doc, meta) {
  if (doc.type == "brewery" && doc.country && doc.state && doc.city) {
    emit([doc.country, doc.state, doc.city], null);
  }
}"""

NUMBERS = """function (doc, meta) {
  for (var i = 0; i < doc.rows; i++) { emit(doc.start + i, null); }
}"""

GROUPS = """function (doc, meta) {
  for (var i = 0; i < doc.rows; i++) {
    var n = Math.floor(doc.start) + i;
    emit([Math.floor(n / 10000), Math.floor(n / 100) % 100, n % 100], null);
  }
}"""


def beer_design(version: int) -> dict[str, Any]:
    """Return the two beer views; each version has its own indexes."""
    remark = f"// {version}\n"
    return {
        "views": {
            "brewery_beers": {"map": remark + BREWERY_BEERS},
            "by_location": {"map": remark + BY_LOCATION, "reduce": "_count"},
        },
        "options": OPTIONS,
    }


def numbers_design() -> dict[str, Any]:
    """Return the design document whose only view has one row for each number."""
    return {"views": {"numbers": {"map": NUMBERS}}, "options": OPTIONS}


def groups_design() -> dict[str, Any]:
    """Return the design document whose only view has arrays as its keys, and counts."""
    return {"views": {"groups": {"map": GROUPS, "reduce": "_count"}}, "options": OPTIONS}


def beers(count: int, sample: Path | None = None) -> Iterator[Document]:
    """Yield breweries and their beers.

    :param sample: JSON lines ``{"id": ..., "doc": ...}``, plain or .gz, to be repeated under other ids until
        there are enough; made up if ``None``.
    """
    if sample is None:
        yield from _made_up_beers(count)
        return
    opener: Any = gzip.open if sample.suffix == ".gz" else open
    with opener(sample, "rt", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    for number in range(count):
        line = lines[number % len(lines)]
        yield f"{line['id']}-{number // len(lines)}", json.dumps(line["doc"]).encode()


def _made_up_beers(count: int) -> Iterator[Document]:
    chance = random.Random(1)
    brewery = ""
    for number in range(count):
        doc: dict[str, Any]
        key = chance.randrange(10**9)
        updated = f"20{chance.randrange(10, 13)}-07-{chance.randrange(10, 28)} 20:00:20"
        description = "x" * chance.randrange(80, 240)
        if number % (BEERS_A_BREWERY + 1) == 0:
            key_text = brewery = f"brewery_{key:09}_{number}"
            country = chance.randrange(40)
            doc = {
                "name": f"Brewery {number}",
                "city": f"City {chance.randrange(1000)}",
                "state": f"State {country}-{chance.randrange(20)}",
                "code": str(chance.randrange(10**5)),
                "country": f"Country {country}",
                "phone": "555-0151",
                "website": f"http://brewery-{number}.example/",
                "type": "brewery",
                "updated": updated,
                "description": description,
                "address": [f"{number} Drumlin Street"],
                "geo": {"accuracy": "ROOFTOP", "lat": chance.random() * 90, "lon": chance.random() * 90},
            }
        else:
            key_text = f"{brewery}-beer_{key:09}"
            doc = {
                "name": f"Beer {number}",
                "abv": chance.randrange(100) / 10,
                "ibu": 69.0,
                "srm": 7.0,
                "upc": 0,
                "type": "beer",
                "brewery_id": brewery,
                "updated": updated,
                "description": description,
                "style": "India Pale Ale",
                "category": "North American Ale",
            }
        yield key_text, json.dumps(doc).encode()


def numbers(rows: int) -> Iterator[Document]:
    """Yield documents that emit 0 to ``rows`` between them, most of them a hundred numbers each.

    Those of :func:`single_numbers` lie between and are to be added: they are not yielded here.

    :param rows: a multiple of 100, more than 1,000; the rows of both together.
    """
    for start in range(0, rows - UPDATED, ROWS_A_DOCUMENT):
        yield f"numbers-{start:08}", b'{"start":%d,"rows":%d}' % (start, ROWS_A_DOCUMENT)


def single_numbers(rows: int, version: int) -> Iterator[Document]:
    """Yield 1,000 documents that emit one number each, all over the range; another one in each version."""
    step = (rows - UPDATED) // UPDATED
    for number in range(UPDATED):
        start = number * step + version % max(step, 1)
        yield f"single-{number:08}", b'{"start":%d.5,"rows":1}' % start


def answer(rows: int) -> Iterator[bytes]:
    """Yield the answer to a query of the numbers, as a node writes it."""
    yield b'{"total_rows":%d,"rows":[' % rows
    separator = b"\r\n"
    for start in range(0, rows, ROWS_A_DOCUMENT):
        some = range(start, min(start + ROWS_A_DOCUMENT, rows))
        yield separator + b",\r\n".join(
            b'{"id":"numbers-%08d","key":%d,"value":null}' % (start, number) for number in some
        )
        separator = b",\r\n"
    yield b"\r\n]\r\n}\r\n"
