"""The OpenAPI 3.1 description of the endpoints, generated from their declarations."""
