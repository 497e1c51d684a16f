"""A random document."""

from __future__ import annotations

import random
from itertools import islice

from couchnode.data.item import Item
from couchnode.data.ports import Documents


def random_item(documents: Documents) -> Item | None:
    """Return a random live document of an active vbucket, or ``None`` if there is none."""
    candidates = [vb for vb in documents.vbuckets if vb is not None and vb.items and vb.state == "active"]
    random.shuffle(candidates)
    for vbucket in candidates:
        start = random.randrange(len(vbucket.items))
        keys = list(islice(vbucket.items, start, start + 16)) or list(vbucket.items)
        for key in keys:
            item = vbucket.get(key)
            if item is not None:
                return item
    return None
