"""Tests of ``gateway.operations``."""
