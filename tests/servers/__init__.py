"""Our client and gateway against servers that offer less than our own node: scripted ones, by version."""
