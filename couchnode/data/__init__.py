"""A bucket's data on one node: documents in vbuckets, their store, their copies on other nodes.

Nothing here knows of connections, HTTP or the cluster map: :class:`couchnode.data.bucket.NodeBucket` is told
which vbuckets this node holds, and in which state.
"""
