"""HTTP on one port of a node: the cluster's REST interface, and the view interface beside it."""
