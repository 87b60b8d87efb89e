"""Documents: a user's corpus, whatever its kind, as chunks (imports algorithms)."""
