"""SDK 1.2's methods for design documents."""

from __future__ import annotations

from typing import Any, Generic

from couchbase.signatures import DesignT


class DesignCommands(Generic[DesignT]):
    """Create, read, publish, delete.

    Each method returns an HttpResult with headers, and raises HTTPError for a status outside 200..299.
    ``use_devmode`` puts ``dev_`` before the name, unless the name has this prefix. ``syncwait`` is the number
    of seconds to wait until every node with the view engine has the change; TimeoutError if it takes longer.
    """

    _driver: Any

    def design_create(
        self, name: str, ddoc: dict[str, Any] | str, use_devmode: bool = True, syncwait: float = 0
    ) -> DesignT:
        """Store a design document, replacing one of the same name.

        :param ddoc: a dict (copied, with its ``_id`` added), or JSON text, which is sent as it is.
        :raises ArgumentError: something else.
        """
        result: DesignT = self._driver.designs.create(name, ddoc, use_devmode, syncwait)
        return result

    def design_get(self, name: str, use_devmode: bool = True) -> DesignT:
        """Read a design document, as ``value`` of the result.

        The header ``X-Couchbase-Meta`` has JSON with its ``rev``.
        """
        result: DesignT = self._driver.designs.get(name, use_devmode)
        return result

    def design_publish(self, name: str, syncwait: float = 0) -> DesignT:
        """Copy ``dev_NAME`` to ``NAME``; the development form stays."""
        result: DesignT = self._driver.designs.publish(name, syncwait)
        return result

    def design_delete(self, name: str, use_devmode: bool = True, syncwait: float = 0) -> DesignT:
        """Delete a design document and its index."""
        result: DesignT = self._driver.designs.delete(name, use_devmode, syncwait)
        return result
