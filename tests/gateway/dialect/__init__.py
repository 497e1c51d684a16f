"""Tests of ``gateway.dialect``."""
