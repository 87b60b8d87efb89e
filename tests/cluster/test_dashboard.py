"""The dashboard of a cluster that speaks TLS, as a process of its own."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request

import pytest

from distcorpus import LocalCluster

pytest.importorskip("cryptography")
pytest.importorskip("starlette")


def test_a_viewers_certificate_and_a_token_are_what_it_takes() -> None:
    with LocalCluster(n_workers=0, tls=True, dashboard=True) as cluster:
        link = cluster.dashboard_link
        assert link is not None
        address, _, token = link.partition("?token=")
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(address, timeout=20)
        request = urllib.request.Request(f"{address}events", headers={"Authorization": f"Bearer {token}"})
        deadline = time.monotonic() + 60
        with urllib.request.urlopen(request, timeout=20) as stream:
            for line in stream:
                told = json.loads(line[6:]) if line.startswith(b"data: ") else {}
                if told.get("now"):
                    assert told["now"]["tls"] is True
                    return
                assert time.monotonic() < deadline, told
