"""An embedded node that speaks Couchbase's protocols, for a laptop, a test or a small box.

The data side (documents, storage, the key-value server) and the control side (users, cluster
map, REST) meet in :class:`couchnode.data.bucket.NodeBucket`: one bucket's data on one node.
"""
