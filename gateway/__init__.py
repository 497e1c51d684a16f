"""couchgateway: documents of a Couchbase cluster over HTTP."""
