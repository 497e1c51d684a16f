"""Tests of ``gateway.clients``."""
