"""Tests of the cluster's other services."""
