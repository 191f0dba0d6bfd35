"""Limits on the time, memory and connections that one client may use."""
