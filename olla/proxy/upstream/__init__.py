"""The endpoint's side: connections to endpoints, and the relay of their answers."""
