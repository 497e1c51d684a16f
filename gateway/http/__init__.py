"""HTTP/1.1 for Klein apps: channel, requests and responses, routes; speed lives here."""
