"""The client's side: connections, request heads, and dispatch to exchanges and routes."""
