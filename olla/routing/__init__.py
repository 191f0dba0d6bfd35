"""Where a request goes, and why. Pure: the same inputs give the same decision, always.

`decision` filters and explains, `policies` order. What is known comes in as a snapshot; what is
in flight as a `Load`; chance as a ticket number.
"""
