"""What olla costs per request and per relayed chunk, in CPU time of its own process."""
