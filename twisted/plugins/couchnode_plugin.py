"""Makes ``twistd couchnode`` known to twistd."""

from twisted.application.service import ServiceMaker

couchnode = ServiceMaker(
    "couchnode",
    "couchnode.service",
    "A Couchbase-compatible node for a laptop, a test or a small box.",
    "couchnode",
)
