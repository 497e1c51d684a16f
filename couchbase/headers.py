"""Headers of HTTP answers."""

from __future__ import annotations

from typing import Any


def canonical_name(name: str) -> str:
    """Return a header's name as it is usually spelled."""
    return "-".join([word.capitalize() for word in name.split("-")])


class Headers(dict[str, str]):
    """Headers as they were sent; lookups ignore case."""

    def _spelled(self, name: object) -> Any:
        if isinstance(name, str) and not super().__contains__(name):
            lower = name.lower()
            for known in self:
                if known.lower() == lower:
                    return known
        return name

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(self._spelled(name))

    def __contains__(self, name: object) -> bool:
        return super().__contains__(self._spelled(name))

    def get(self, name: str, default: Any = None) -> Any:
        """Return a header's value, or ``default``."""
        return super().get(self._spelled(name), default)
