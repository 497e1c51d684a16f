"""Tests of the protocol core: bytes in, bytes out, no network."""
