"""One request from its body to its record: parse, admit, attempt, fail over, relay."""
