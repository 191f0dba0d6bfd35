"""What happened, told to people and machines: metrics, the request log, the program's own log.

Each is a fold over `RequestRecord`s or reads a live object when asked; nothing here decides
anything, and the proxy knows none of it.
"""
