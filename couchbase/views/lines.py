"""The proof that each line of a text is one JSON object, without parsing it."""

from __future__ import annotations

__all__ = ["is_object_a_line"]

_NOT_STRUCTURE = bytes(code for code in range(256) if code not in b'{}[]"\n')
# Most siblings and levels that the proof expands before it gives up on a block.
_MAX_PASSES = 24


def is_object_a_line(block: bytes, lines: int) -> bool:
    """Return whether brackets prove that each line is one object. False may be wrong, true is not.

    Valid JSON has no newline in a string, so all newlines are structure.
    """
    if b"\\" in block:
        block = block.replace(b"\\\\", b"").replace(b'\\"', b"")
    skeleton = block.translate(None, _NOT_STRUCTURE)
    # Without brackets in strings, quotes come in pairs; a bracket in a string leaves an odd run on each side.
    if skeleton.count(b'"') != 2 * skeleton.count(b'""'):
        return False
    skeleton = skeleton.translate(None, b'"')
    wanted = 3 * lines - 1
    for _ in range(_MAX_PASSES):
        if len(skeleton) == wanted:
            return skeleton == b"\n".join([b"{}"] * lines)
        # An empty pair may be removed if a bracket is open around it on its line, so a line's own pair never
        # is.
        shorter = (
            skeleton.replace(b"{[]", b"{").replace(b"{{}", b"{").replace(b"[{}", b"[").replace(b"[[]", b"[")
        )
        if len(shorter) == len(skeleton):
            return False
        skeleton = shorter
    return False
