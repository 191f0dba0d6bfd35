"""Bounds on what one client may take: time, memory, connections."""
