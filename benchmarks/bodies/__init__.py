"""Measure how long one request body stalls other requests, and how much memory it takes."""
