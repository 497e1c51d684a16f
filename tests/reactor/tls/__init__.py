"""Tests of reactor.tls."""
