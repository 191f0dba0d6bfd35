"""What olla answers itself: merged lists of the fleet, its own status, metrics, version.

Reads the fleet and what telemetry counted; moves no bytes and decides nothing about requests.
"""
