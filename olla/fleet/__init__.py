"""Hold what olla knows: endpoints, their models and health, and requests in flight.

Pure: `olla.probing` queries nodes, and `olla.routing` decides where requests go.
"""
