"""Spans: what they say, which requests have them, and how they are exported."""
