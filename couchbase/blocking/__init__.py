"""The driver of the blocking connection: non-blocking sockets and a loop that runs inside each call."""
