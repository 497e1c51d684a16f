"""Items: objects of the program's own that know their key, value and version.

python examples/guide/item_documents.py couchbase://127.0.0.1:11210
"""

from __future__ import annotations

import sys
from typing import Any

from couchbase import FMT_UTF8, Couchbase
from couchbase.exceptions import ArgumentError, KeyExistsError
from couchbase.items import Item, ItemOptionDict, ItemSequence


class Player(Item):
    """A player that is also a document."""

    def __init__(self, name: str, points: int = 0) -> None:
        super().__init__(f"player:{name}", {"name": name, "points": points})
        self.team = "blue"  # Stays here: only the value is stored.

    def score(self, points: int) -> None:
        """Change the value."""
        self.value["points"] += points


def main(connection_string: str) -> None:
    """Store and load items."""
    cb = Couchbase.connect(bucket="default", connection_string=connection_string)

    ann, bob = Player("ann"), Player("bob", 5)
    stored = cb.set_multi(ItemSequence([ann, bob]))
    print("the result is the item:", stored["player:ann"] is ann)
    print("it has a version:", ann.cas != 0)

    # Storing again uses that version, so that no other change is lost.
    ann.score(10)
    cb.set_multi(ann.as_itcoll())
    print("in the bucket:", cb.get("player:ann").value)
    cb.set("player:ann", {"name": "ann", "points": 1000})
    ann.score(1)
    try:
        cb.set_multi(ItemSequence([ann, bob]))
    except KeyExistsError as error:
        print("changed by another:", error.key, "- the item says", hex(ann.rc), "- bob:", bob.success)

    # Loading fills the items.
    cb.get_multi(ItemSequence([ann, bob]))
    print("loaded:", ann.value["points"], bob.value["points"], "team", ann.team)

    # Options, item by item.
    options = ItemOptionDict()
    options.add(ann, ttl=600)
    options.add(bob, ignore_cas=True)
    cb.set("player:bob", {"name": "bob", "points": -1})
    bob.value = {"name": "bob", "points": 7}
    cb.replace_multi(options)
    print("cas ignored:", cb.get("player:bob").value["points"])

    # append_items and prepend_items also change the values of the items.
    diary: Any = Item("diary", "Monday.")
    cb.set_multi(ItemSequence(diary), format=FMT_UTF8)
    cb.append_items(diary.as_itcoll(fragment=" Tuesday."))
    cb.prepend_items(diary.as_itcoll(fragment="Sunday. "))
    print("diary:", diary.value)
    print("the same in the bucket:", cb.get("diary").value == diary.value)
    try:
        cb.append_items(ItemSequence([diary]))
    except ArgumentError:
        print("no fragment given")

    cb.get_multi(ItemSequence([ann, bob, diary]))
    print("deleted:", bool(cb.delete_multi(ItemSequence([ann, bob, diary])).all_ok))


if __name__ == "__main__":
    main(*sys.argv[1:])
