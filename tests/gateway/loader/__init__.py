"""Tests of ``gateway.loader``."""
