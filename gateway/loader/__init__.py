"""``couchgateway-load``: a client of the gateway, not a part of it."""
