"""Makes ``twistd couchgateway`` known to twistd."""

from twisted.application.service import ServiceMaker

couchgateway = ServiceMaker(
    "couchgateway",
    "gateway.service",
    "Documents of a Couchbase cluster, or of an embedded node, over HTTP.",
    "couchgateway",
)
