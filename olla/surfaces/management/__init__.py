"""The management API: models, chat and generate in one shape, keys."""
