"""Share limits and revocations between running routers, in Redis or Valkey."""
