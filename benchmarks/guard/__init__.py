"""Count the instructions of each step of a request: the same number on a busy or idle machine."""
