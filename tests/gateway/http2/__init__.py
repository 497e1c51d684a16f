"""Tests of :mod:`gateway.http2`."""
