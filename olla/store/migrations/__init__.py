"""How a database becomes what `olla.store.schema` says: one version after the other."""
