"""Load a router while its nodes and peers fail, and check its invariants."""
