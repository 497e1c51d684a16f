"""Tests of ``gateway.plugins``."""
