"""On what knowledge olla decides: endpoints, their models and health, and what is in flight.

Pure: nothing here asks a node anything (`olla.probing` does) or decides where a request goes
(`olla.routing` does).
"""
