"""The description of the endpoints for machines and readers: OpenAPI 3.1, made from what they declare."""
