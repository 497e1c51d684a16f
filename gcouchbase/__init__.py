"""The Couchbase SDK for gevent: connections that many greenlets share."""

from __future__ import annotations

try:
    import gevent  # noqa: F401  # first, so that its absence is explained
except ImportError as error:
    raise ImportError(f"gcouchbase needs gevent: pip install 'couchgateway[gevent]' ({error})") from None

from gcouchbase.connection import GConnection, GCouchbase, GView

__version__ = "1.2.5"
"""The SDK release whose interface this package has."""

__all__ = ["GConnection", "GCouchbase", "GView", "__version__"]
