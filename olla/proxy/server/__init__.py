"""The client's side: connections, request heads, and the way each request takes from there."""
