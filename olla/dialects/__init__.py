"""What is asked: paths and bodies -> dialect, operation, model; how answers end; how errors look.

Pure. Nothing else in the program knows what a path or a body of a wire format means.
"""
