"""The worker daemon: its chunk cache and the running of one job (imports algorithms and wire)."""
