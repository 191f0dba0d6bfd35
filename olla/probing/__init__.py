"""Probe the endpoints' health and models, and publish snapshots of the fleet.

Never sends a request that would make an endpoint load a model.
"""
