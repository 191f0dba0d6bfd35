"""How it moves: connections, heads, bodies; attempts, relaying, back-pressure, hanging up.

The data plane. Bytes of an answer go from the endpoint's connection to the client's as they
come; nothing here knows what they mean (dialects do) or where they should go (routing does).
"""
