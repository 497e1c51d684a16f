"""Who asks: addresses behind proxies, web pages and their origins, and the log of requests."""
