"""The worker daemon: what it keeps between jobs, and one job (imports algorithms, kernels and wire)."""
