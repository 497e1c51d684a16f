"""Tests of the ground floor: each module here has the name of the one that it tests."""
