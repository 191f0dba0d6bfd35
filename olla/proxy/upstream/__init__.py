"""Connections to endpoints, and the relay of their responses."""
