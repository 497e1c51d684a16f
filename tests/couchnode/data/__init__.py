"""Tests of couchnode.data."""
