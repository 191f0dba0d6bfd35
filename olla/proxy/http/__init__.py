"""HTTP messages in both directions: heads, fields, framing, codings, cross-origin policy."""
