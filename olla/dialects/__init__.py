"""Parse requests and the ends of responses: paths, bodies, operations, models, errors.

Pure. No other package knows the paths or bodies of a wire format.
"""
