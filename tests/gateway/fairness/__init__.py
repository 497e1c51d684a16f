"""Tests of ``gateway.fairness``."""
