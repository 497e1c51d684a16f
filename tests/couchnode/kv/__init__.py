"""Tests of couchnode.kv."""
