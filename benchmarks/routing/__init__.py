"""Routing policies compared on a fleet in discrete events: python -m benchmarks.routing --help"""
