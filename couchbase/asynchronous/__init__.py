"""Base of drivers that answer by callbacks (``couchbase.async`` of SDK 1.2; the word is reserved now)."""
