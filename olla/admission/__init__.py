"""When a request may start: the right to a slot.

Pure. `Dispatcher` asks routing and gives out leases in one step, so that nothing comes between
the choice and the count it was based on.
"""
