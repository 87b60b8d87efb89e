"""The mathematics: pure functions of arrays, usable with no cluster (imports nothing of ours)."""
