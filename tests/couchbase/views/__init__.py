"""Tests of the SDK's views."""
