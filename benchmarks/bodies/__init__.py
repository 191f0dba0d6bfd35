"""How long one request's body can hold up everybody else, and how much memory it takes."""
