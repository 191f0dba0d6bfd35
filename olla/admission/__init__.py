"""Decide when a request may start.

Pure. `Dispatcher` asks routing and grants leases in one step, so that nothing changes between the
choice and the counts it is based on.
"""
