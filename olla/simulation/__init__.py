"""A faithful fake Ollama, for the demo, the tests and the benchmarks.

`node` is the pure scheduler, `server` puts it behind real HTTP. Shares no code with what routes
to it.
"""
