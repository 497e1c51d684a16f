"""Tests of ``gateway.resources.views``."""
