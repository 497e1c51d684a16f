"""Tests of ``gateway.batches``."""
