"""Tests of couchnode.cluster."""
