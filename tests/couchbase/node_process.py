"""An embedded node in a separate process: blocking clients cannot share a process with its reactor.

    python -m tests.couchbase.node_process '{"nodes": 2, "replicas": 1}'

Prints one line of JSON once it serves, and ends when its standard input does.
"""

import json
import sys

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.protocol import Protocol
from twisted.internet.stdio import StandardIO

from couchnode.embedded import EmbeddedNode


class Lifeline(Protocol):
    """Stops the node when the process that started it has ended."""

    def __init__(self, node):
        self.node = node

    @inlineCallbacks
    def connectionLost(self, reason):
        yield self.node.stop()
        reactor.stop()


@inlineCallbacks
def start(options):
    """Start a node and say where it is."""
    node = EmbeddedNode(
        options.get("data_dir"),
        nodes=options.get("nodes", 1),
        replicas=options.get("replicas", 0),
        users=[("Administrator", "password")] if options.get("administrator", True) else [],
        buckets=[("default", None), ("secret", "hush"), ("open", None)],
        open_buckets=True,
    )
    yield node.start()
    StandardIO(Lifeline(node))
    place = {"string": node.connection_string, "rest": node.rest_urls, "kv": node.kv_ports}
    print(json.dumps(place), flush=True)


def failed(failure):
    """Say why, and end."""
    failure.printTraceback(sys.stderr)
    reactor.stop()


if __name__ == "__main__":
    reactor.callWhenRunning(lambda: start(json.loads(sys.argv[1])).addErrback(failed))
    reactor.run()
