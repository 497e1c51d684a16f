"""A gateway with all plugins of this project, and its document."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import gateway.plugins
from gateway.interfaces import IGatewayPlugin
from gateway.openapi.document import About, Route, document, routes_of
from tests.gateway.support import Site

ABOUT = About("1.2.3", {"basic": {"type": "http", "scheme": "basic"}})


def own_plugins() -> list[Any]:
    """Return a new instance of each plugin of this project."""
    found = []
    for path in sorted(Path(list(gateway.plugins.__path__)[0]).glob("[a-z]*.py")):
        module = import_module(f"gateway.plugins.{path.stem}")
        found += [type(one)() for one in vars(module).values() if IGatewayPlugin.providedBy(one)]
    return found


def own_routes() -> list[Route]:
    """Return all routes of the gateway and its plugins."""
    return list(routes_of(Site(plugins=own_plugins()).gateway.app))


def own_document() -> dict[str, Any]:
    """Return the document about all of them."""
    return document(own_routes(), ABOUT)
