"""The life of a request: parse, admit, attempt, fail over, relay, record."""
