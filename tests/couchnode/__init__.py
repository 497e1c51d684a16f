"""Tests of couchnode."""
