"""The OpenAPI document of the router's own APIs."""
