"""Tests of ``gateway.resources.base``."""
