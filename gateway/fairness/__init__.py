"""No caller hurts another: bytes under way, and time of the reactor, in shares."""
