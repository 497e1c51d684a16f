"""Tests of couchnode.rest."""
