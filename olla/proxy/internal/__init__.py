"""Internal routes, and the subrequests that they send through the router."""
