"""Health, readiness, status, statistics and metrics of the router."""
