"""The versions. A released one is never changed: what is to change goes into the next."""
