"""``Accept``: media types and their weights."""

from __future__ import annotations

import re

from gateway.dialect.errors import bad_request

__all__ = ["parse_accept"]

_QUALITY = re.compile(rb"q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)", re.IGNORECASE)


def parse_accept(value: bytes) -> list[tuple[bytes, float]]:
    """Return the media types of the header, in lower case and in its order, each with its weight from 0 to 1.

    Parameters other than ``q`` are ignored.

    :raises Refusal: 400 for an invalid weight.
    """
    found = []
    for part in value.split(b","):
        name, *parameters = (piece.strip() for piece in part.split(b";"))
        quality = 1.0
        for parameter in parameters:
            if parameter[:2].lower() == b"q=":
                weight = _QUALITY.fullmatch(parameter)
                if weight is None:
                    shown = parameter[:20].decode("latin-1")
                    raise bad_request(f"Accept: {shown!r} is not a weight from q=0 to q=1")
                quality = float(weight[1])
        if name:
            found.append((name.lower(), quality))
    return found
