"""The Couchbase protocol with no I/O: frames, operations, handshake, cluster map, durability.

Nothing in this package opens a socket, reads a clock, starts a thread, logs, or draws a random
number: anything of these is an argument, or is requested by a plan (see
:mod:`couchbase.protocol.plans`). Standard library only.
"""
