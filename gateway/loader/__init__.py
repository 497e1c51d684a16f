"""``couchgateway-load`` and ``couchgateway-export``: clients of the gateway, not parts of it."""
