"""Tests of access: rules, tokens, keys, certificates, limits."""
