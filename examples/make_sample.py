"""Write sample-breweries.jsonl: forty breweries and their beers, all invented here.

    python examples/make_sample.py > examples/sample-breweries.jsonl

The same seed gives the same file. Each line is ``{"id": key, "doc": document}``, the form that
``couchgateway-load`` and ``twistd couchnode --sample`` read.
"""

from __future__ import annotations

import json
import random
import re
import sys
from collections.abc import Iterator
from typing import Any

SEED = 20120704
BREWERIES = 40
BEERS_EACH = (3, 5)

# Invented towns on a made-up map: (city, state, country, postal code, latitude, longitude).
TOWNS = [
    ("Alderwick", "North Marches", "Estland", "AW1 4QT", 54.11, -1.92),
    ("Brasno", "Upper Lusa", "Moravka", "402 17", 49.73, 16.44),
    ("Corriveau Falls", "Haute-Lande", "Valmont", "H2-881", 46.52, -71.90),
    ("Dunmere", "Westhaven", "Estland", "DM7 2LB", 50.48, -4.77),
    ("Eikvoort", "Oostland", "Nederveen", "3811 KD", 52.15, 5.39),
    ("Fort Larkin", "Tamarack", "Columbia Plains", "58114", 46.90, -98.70),
    ("Grauheim", "Oberfeld", "Rheinmark", "D-97 340", 49.74, 10.22),
    ("Halvorsund", "Nordfjell", "Skarland", "6817", 61.45, 5.86),
    ("Isola Chiara", "Val Serena", "Lombara", "23 018", 46.14, 9.57),
    ("Juniper Bend", "Cascadia", "Columbia Plains", "97741", 44.30, -121.17),
]
FIRST = [
    "Amber", "Barrow", "Copper", "Drumlin", "Ember", "Fallow", "Gannet", "Hollow", "Iron", "Kestrel",
    "Lantern", "Millrace", "Nettle", "Otter", "Paper", "Quarry", "River", "Saddle", "Thistle", "Wicker",
]  # fmt: skip
SECOND = [
    "Anchor", "Bell", "Crossing", "Field", "Gate", "Hammer", "House", "Lane", "Lock", "Moon",
    "Orchard", "Post", "Road", "Stone", "Tower", "Wharf",
]  # fmt: skip
KINDS = ["Brewing Company", "Brewery", "Brew Works", "Brewpub", "Brewing Co-operative"]
BEER_FIRST = [
    "Borrowed", "Crooked", "Early", "Foggy", "Gentle", "Honest", "Idle", "Jolly", "Late", "Muddy",
    "Narrow", "Old", "Patient", "Quiet", "Restless", "Second", "Tall", "Upright", "Wandering", "Yellow",
]  # fmt: skip
BEER_SECOND = [
    "Badger", "Carpenter", "Ferryman", "Harvest", "Lighthouse", "Magpie", "Miller", "November", "Parson",
    "Plough", "Signalman", "Steamer", "Tailor", "Weaver",
]  # fmt: skip
# (style, category, abv from, abv to, ibu from, ibu to, srm from, srm to, what it is like)
STYLES = [
    ("Pale Ale", "British Ale", 4.2, 5.6, 25, 40, 6, 12, "biscuit malt and a dry, leafy finish"),
    (
        "India Pale Ale",
        "North American Ale",
        5.8,
        7.6,
        50,
        75,
        7,
        14,
        "grapefruit, pine and a firm bitterness",
    ),
    ("Stout", "Irish Ale", 4.0, 6.5, 30, 45, 30, 40, "roast barley, coffee and a little smoke"),
    ("Porter", "Irish Ale", 4.8, 6.6, 22, 40, 22, 35, "cocoa, toast and dark fruit"),
    ("Pilsener", "German Lager", 4.4, 5.3, 30, 45, 3, 6, "noble hops over clean, pale malt"),
    ("Hefeweizen", "German Ale", 4.9, 5.6, 10, 15, 3, 8, "clove, banana and a cloudy glass"),
    ("Saison", "Belgian and French Ale", 5.0, 7.2, 20, 35, 5, 12, "pepper, hay and a very dry end"),
    ("Barleywine", "British Ale", 8.5, 11.5, 45, 70, 14, 22, "toffee, dried fig and a long warmth"),
    ("Märzen", "German Lager", 5.3, 6.1, 18, 25, 9, 15, "bread crust and a soft sweetness"),
]
REASONS = [
    "in a former {place} by the river",
    "behind the old {place}, with eight taps and no television",
    "by two sisters who had run the {place} next door",
    "in the cellar of the {place}, where the spring still runs",
]
PLACES = ["tannery", "telephone exchange", "boathouse", "grain store", "railway shed", "fire station"]


def slug(name: str) -> str:
    """Return a name as it appears in a key: lower-case letters, digits and underscores."""
    return re.sub(r"[^\w]+", "_", name.lower()).strip("_")


def moment(chance: random.Random, month: int) -> str:
    """Return an instant in office hours of that month of 2012."""
    day, hour, minute = chance.randint(1, 28), chance.randint(8, 19), chance.randint(0, 59)
    return f"2012-{month:02d}-{day:02d} {hour:02d}:{minute:02d}:00"


def brewery(chance: random.Random, name: str) -> dict[str, Any]:
    """Invent one brewery."""
    city, state, country, code, latitude, longitude = chance.choice(TOWNS)
    founded = chance.randint(1871, 2009)
    story = chance.choice(REASONS).format(place=chance.choice(PLACES))
    return {
        "name": name,
        "city": city,
        "state": state,
        "code": code,
        "country": country,
        "phone": f"555-0{chance.randint(100, 199)}",
        "website": f"http://{slug(name).replace('_', '-')}.example/",
        "type": "brewery",
        "updated": moment(chance, 7),
        "description": f"Founded in {founded} {story}.",
        "address": [f"{chance.randint(1, 180)} {chance.choice(FIRST)} Street"],
        "geo": {
            "accuracy": chance.choice(["ROOFTOP", "RANGE_INTERPOLATED", "APPROXIMATE"]),
            "lat": round(latitude + chance.uniform(-0.05, 0.05), 4),
            "lon": round(longitude + chance.uniform(-0.05, 0.05), 4),
        },
    }


def beer(chance: random.Random, name: str, brewery_id: str) -> dict[str, Any]:
    """Invent one beer of a brewery."""
    style, category, *bounds, taste = chance.choice(STYLES)
    abv_low, abv_high, ibu_low, ibu_high, srm_low, srm_high = bounds
    return {
        "name": f"{name} {style}",
        "abv": round(chance.uniform(abv_low, abv_high), 1),
        "ibu": float(chance.randint(ibu_low, ibu_high)),
        "srm": float(chance.randint(srm_low, srm_high)),
        "upc": 0,
        "type": "beer",
        "brewery_id": brewery_id,
        "updated": moment(chance, 8),
        "description": f"Brewed all year: {taste}.",
        "style": style,
        "category": category,
    }


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every (key, document), each brewery before its beers."""
    chance = random.Random(SEED)
    names = chance.sample([f"{one} {two}" for one in FIRST for two in SECOND], BREWERIES)
    for name in sorted(names):
        full_name = f"{name} {chance.choice(KINDS)}"
        brewery_id = slug(full_name)
        yield brewery_id, brewery(chance, full_name)
        beers = chance.sample(
            [f"{one} {two}" for one in BEER_FIRST for two in BEER_SECOND], chance.randint(*BEERS_EACH)
        )
        for beer_name in sorted(beers):
            document = beer(chance, beer_name, brewery_id)
            yield f"{brewery_id}-{slug(document['name'])}", document


def main() -> None:
    """Print the sample."""
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    for key, document in documents():
        print(json.dumps({"id": key, "doc": document}, ensure_ascii=False))


if __name__ == "__main__":
    main()
