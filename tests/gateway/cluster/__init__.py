"""Tests of ``gateway.cluster``."""
