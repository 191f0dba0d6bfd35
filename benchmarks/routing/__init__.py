"""Compare routing policies on a fleet of discrete events: python -m benchmarks.routing --help"""
