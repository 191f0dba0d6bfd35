"""Requests that olla answers itself, and the requests it sends through itself."""
