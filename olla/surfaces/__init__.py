"""Serve olla's own APIs: merged lists of the fleet, status, metrics, version, the gateway APIs.

They read the fleet and the counts of telemetry. They move no bytes between client and endpoint, and
decide nothing about requests.
"""
