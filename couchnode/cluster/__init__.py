"""The cluster: its nodes, buckets and users, the map of vbuckets to nodes, and the metadata on disk."""
