"""HTTP messages, both ways: heads, fields, framing, codings, cross-origin policy."""
