"""The Couchbase SDK: API of the Python SDK 1.2 on a protocol core of its own."""
