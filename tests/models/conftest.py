"""A cluster for the tests of the models: real processes on loopback."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from distcorpus import LocalCluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[LocalCluster]:
    """Two workers that no test may harm."""
    with LocalCluster(n_workers=2) as cluster:
        yield cluster
