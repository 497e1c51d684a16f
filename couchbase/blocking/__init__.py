"""The driver under the blocking connection: non-blocking sockets and one loop, run inside of each call."""
