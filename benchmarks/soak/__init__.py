"""A router under load while everything around it breaks, and what must hold all the same."""
