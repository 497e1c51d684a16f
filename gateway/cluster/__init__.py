"""The way to the cluster: as whom, over which connection, and for how long."""
