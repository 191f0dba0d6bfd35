"""Translates chats between wire formats: bytes to a common form, and the common form to bytes.

`conversation` and `answer` are the common form of requests and answers. Each format has one codec
for both. Nothing here does I/O, knows endpoints, or keeps state beyond one request.
"""
