"""The Couchbase protocol without I/O: frames, operations, handshake, cluster map, durability.

Nothing in this package opens a socket, reads a clock, starts a thread, logs, or draws a random number: each
of these is an argument, or a plan requests it (see :mod:`couchbase.protocol.plans`). Standard library only.
"""
