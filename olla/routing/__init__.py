"""Decide where a request goes, and why.

Pure: the same inputs always give the same decision. `decision` filters and explains, `policies`
order. The inputs are a snapshot of the fleet, the requests in flight, and a ticket number as the
only source of chance.
"""
