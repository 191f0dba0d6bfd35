"""Measure olla's CPU time per request and per relayed chunk in its own process."""
