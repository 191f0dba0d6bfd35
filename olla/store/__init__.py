"""What outlives the process: keys, and what was used. SQLite by default, PostgreSQL by URL."""
