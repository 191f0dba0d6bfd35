"""Instructions of one request's stations: as many on a busy machine as on an idle one."""
