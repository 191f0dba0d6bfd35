"""Report requests to people and machines: metrics, the request log, the program's own log.

Each is a fold over `RequestRecord`s or reads a live object on demand. Nothing here decides
anything, and the proxy does not depend on it.
"""
