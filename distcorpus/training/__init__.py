"""One training run, whoever computes its rounds (imports algorithms, kernels, corpora and engines.base)."""
