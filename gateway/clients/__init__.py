"""Clients: addresses behind proxies, web pages and their origins, and the access log."""
