"""Which engine computes a model that our own cluster does not: threads of this process, or a Dask cluster."""

from __future__ import annotations

from typing import Any

from distcorpus.engines.base import OwnEngine
from distcorpus.engines.threads import ThreadsEngine


def chosen_client(client: Any, **others: Any) -> Any:
    """Return the Dask client that a program gives, or None.

    Parameters
    ----------
    client : dask.distributed.Client, "active" or None
    **others
        The arguments that say where else to compute, by name: all have to be None.

    Raises
    ------
    ValueError, TypeError
        If one is not, or the client is of no use.
    ImportError
        If Dask is not installed.
    """
    if client is None:
        return None
    for name, value in others.items():
        if value is not None:
            raise ValueError(
                f"client and {name}={value!r}: give client alone to compute on a Dask cluster, or leave it "
                "out to compute on a cluster of ours (distributed=True, ns_conf) or by threads (workers)"
            )
    try:
        from distcorpus.engines.dask import checked_client
    except ImportError as error:
        raise ImportError(
            f"client is for a Dask cluster, and {error.name or 'Dask'} cannot be imported: pip install "
            "'distcorpus[dask]'"
        ) from error
    return checked_client(client)


def engine_of(client: Any, workers: int | None) -> OwnEngine:
    """Return the engine to enter: of a Dask client, or else so many threads."""
    if client is None:
        return ThreadsEngine(workers)
    from distcorpus.engines.dask import DaskEngine

    return DaskEngine(client)
