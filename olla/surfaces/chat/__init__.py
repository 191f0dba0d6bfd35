"""The chat service: chat, status, keys and usage."""
