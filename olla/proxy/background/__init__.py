"""Work that no client waits for directly: model loads, stall detection, rerouting."""
