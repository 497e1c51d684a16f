"""``couchgateway-load`` and ``couchgateway-export``: programs that are clients of the gateway, not parts of
it."""
