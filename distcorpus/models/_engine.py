"""Which engine computes a model that our own cluster does not: threads of this process, or a Dask cluster."""

from __future__ import annotations

from typing import Any

from distcorpus.corpora.reading import as_corpus, check_shape, is_placed
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


def placed(corpus: Any, client: Any) -> Any:
    """Return a corpus as `corpora.reading.divisible` reads it, be it on a Dask cluster.

    Parameters
    ----------
    corpus : iterable of documents, scipy sparse matrix, or Dask collection
    client : Client or None
        Who reads a Dask collection. Without one a bag is an iterable like any other.

    Raises
    ------
    TypeError
        If it is no corpus, or a collection of another kind.
    ValueError
        If it is a collection that only a client can read, and there is none.
    """
    if is_placed(corpus) or not _is_of_dask(corpus):
        return as_corpus(corpus)
    if client is not None:
        client = chosen_client(client)  # a model's own may have been set since
        from distcorpus.engines.daskcorpus import DaskCorpus

        return DaskCorpus(client, corpus, check_shape)
    _check_readable(
        corpus, "there is no client: give client=Client(...) to compute where it is, or the documents"
    )
    return as_corpus(corpus)


def check_here(corpus: Any, where: str) -> None:
    """Refuse documents on a Dask cluster for what is computed in this process alone.

    Parameters
    ----------
    corpus : any
    where : str
        What does take them.

    Raises
    ------
    ValueError
        If it is a collection other than a bag, which is an iterable like any other.
    """
    _check_readable(corpus, f"this is computed here: see {where}, or give the documents")


def _check_readable(corpus: Any, remedy: str) -> None:
    if _is_of_dask(corpus):
        part = corpus[0] if type(corpus) in (list, tuple) else corpus
        if type(part).__name__ != "Bag":
            raise ValueError(f"corpus is of Dask ({type(part).__name__}), and {remedy} themselves, computed")


def placed_with(corpus: Any, client: Any, own: Any, distributed: bool | None = None) -> tuple[Any, Any]:
    """Return what `placed` does, and the client that then has to compute: the one that is given or, for what
    is on a cluster, a model's own.
    """
    if client is not None:
        client = chosen_client(client, distributed=distributed)
    read = placed(corpus, own if client is None else client)
    return read, own if client is None and is_placed(read) else client


def _is_of_dask(corpus: Any) -> bool:
    """Return whether something is of Dask, or a list of what is; without loading Dask for it."""
    part = corpus[0] if type(corpus) in (list, tuple) and corpus else corpus
    return type(part).__module__.startswith(("dask.", "distributed."))


def engine_of(client: Any, workers: int | None) -> OwnEngine:
    """Return the engine to enter: of a Dask client, or else so many threads."""
    if client is None:
        return ThreadsEngine(workers)
    from distcorpus.engines.dask import DaskEngine

    return DaskEngine(client)
