"""A bucket's data on one node: documents in vbuckets, their store, their copies on other nodes.

This package does not depend on connections, HTTP or the cluster map:
:class:`couchnode.data.bucket.NodeBucket` is given the vbuckets that this node holds, and their states.
"""
