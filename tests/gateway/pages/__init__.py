"""Tests of what the gateway's pages share."""
