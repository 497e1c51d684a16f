"""Makes ``twistd couchgateway`` known to twistd."""

from typing import Any

from twisted.application.service import ServiceMaker
from twisted.python.reflect import namedAny


class _CommandLineFirst(ServiceMaker):
    """Imports the gateway when it starts: help, version and refused options need only the command line."""

    @property
    def options(self) -> Any:
        """The command line's class."""
        return namedAny("gateway.commandline.Options")


couchgateway = _CommandLineFirst(
    "couchgateway",
    "gateway.service",
    "Documents of a Couchbase cluster, or of an embedded node, over HTTP.",
    "couchgateway",
)
