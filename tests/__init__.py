"""Tests of couchgateway; the folders mirror the packages. Run with trial."""
