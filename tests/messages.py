"""What programs send to begin a training run, as far as several tests send the same."""

from __future__ import annotations

#: A `Plan`, but for what it has defaults for.
PLAN = {
    "passes": 1,
    "update_chunks": 1,
    "chunksize": 10,
    "decay": 0.5,
    "offset": 1.0,
    "iterations": 5,
    "gamma_threshold": 0.001,
    "seed": 1,
}
#: A `Progress`: nothing is done yet.
START = {"pass_": 0, "chunk": 0, "documents": 0, "updates": 0}
