"""Access to the cluster: credentials, connections, and time limits."""
