"""Asks the endpoints how they are and what they have, and publishes what is known of the fleet.

Never asks anything that would make an endpoint load a model.
"""
