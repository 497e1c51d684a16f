"""Tests of couchnode.views."""
