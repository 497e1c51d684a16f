"""Tests of ``gateway.workers``."""
