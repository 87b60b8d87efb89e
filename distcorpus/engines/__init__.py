"""What computes the rounds of a training run (imports algorithms and kernels; `pyro` also wire)."""
