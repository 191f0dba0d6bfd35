"""Authenticates callers, authorizes requests and charges quotas."""
