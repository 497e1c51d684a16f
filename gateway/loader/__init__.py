"""``couchgateway-load``: a client of the gateway, and no part of it."""
