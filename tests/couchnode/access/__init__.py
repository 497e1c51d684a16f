"""Tests of :mod:`couchnode.access`."""
