"""What routers share while they run: limits and revocations, in Redis or Valkey."""
