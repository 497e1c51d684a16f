"""The cluster's other services: query, search, analytics, management; proxied, and queries in the dialect."""
