"""What the dispatcher tells arrives as it was, or is refused."""

from __future__ import annotations

import json
import math
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distcorpus.monitor import snapshot
from distcorpus.monitor.snapshot import (
    Details,
    Histogram,
    Incident,
    JobEvent,
    Point,
    SessionEnd,
    SessionView,
    Snapshot,
    Topic,
    Totals,
    WorkerView,
    as_json,
    from_message,
    to_message,
)
from distcorpus.wire import calls

VIEWS = [cls for cls in vars(snapshot).values() if isinstance(cls, type) and is_dataclass(cls)]

SNAPSHOT = Snapshot(
    schema=snapshot.SCHEMA,
    time=1.5,
    version="1",
    host="h",
    pid=1,
    began=1.0,
    sessions=(SessionView(name="lda-1", kind="lda", perplexity=12.5),),
    workers=(WorkerView(name="w", state="unreachable", reason="no answer", versions={"numpy": "2"}),),
    totals=Totals(jobs={"lda": {"accepted": 3}}, job_seconds={"compute": Histogram(total=2.0)}),
    jobs=(JobEvent(1, 1.0, 2.0, "lda-1", "w", 1, "lda", "accepted", 5, 1, 0.1, 0.2, 0.3, 0.4, 10, 20),),
    cursor=1,
)


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Values that a type hint of a view allows."""
    origin, parts = get_origin(hint), get_args(hint)
    if NoneType in parts:
        return st.none() | values_of(next(part for part in parts if part is not NoneType))
    if is_dataclass(hint):
        return st.builds(hint, **{name: values_of(inner) for name, inner in get_type_hints(hint).items()})
    if origin is tuple:
        return st.lists(values_of(parts[0]), max_size=2).map(tuple)
    if origin is not None:
        return st.dictionaries(st.text(max_size=5), values_of(parts[1]), max_size=2)
    return {
        str: st.text(max_size=20),
        int: st.integers(-(2**63), 2**63 - 1),
        float: st.floats(allow_nan=False, allow_infinity=False),
        bool: st.booleans(),
    }[hint]


@settings(max_examples=25, deadline=None)
@given(st.data())
@pytest.mark.parametrize("cls", [Snapshot, Details])
def test_a_view_arrives_as_it_was(cls: type, data: st.DataObject):
    view = data.draw(values_of(cls))
    travelled = calls.read(calls.pickled(to_message(view)))
    assert from_message(cls, travelled) == view
    assert sorted(json.loads(as_json(view))) == sorted(field.name for field in fields(cls))


@pytest.mark.parametrize(
    ("path", "value", "what"),
    [
        (("time",), math.nan, "Snapshot.time"),
        (("pid",), True, "Snapshot.pid"),
        (("pid",), 2**70, "Snapshot.pid"),
        (("host",), "x" * 5000, "Snapshot.host"),
        (("host",), b"h", "Snapshot.host"),
        (("sessions",), {}, "Snapshot.sessions"),
        (("sessions", 0, "name"), None, "Snapshot.sessions.name"),
        (("workers", 0, "versions"), {1: "x"}, "Snapshot.workers.versions"),
        (("totals", "jobs", "lda"), [], "Snapshot.totals.jobs"),
        (("totals", "job_seconds", "compute", "counts"), [1.5], "counts"),
        (("jobs", 0), (1, 2), "Snapshot.jobs"),
        (("may_differ",), ["x"] * 100_001, "Snapshot.may_differ"),
    ],
)
def test_what_is_no_snapshot_is_refused(path: tuple[Any, ...], value: Any, what: str):
    message = to_message(SNAPSHOT)
    place = message
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(ValueError, match=what):
        from_message(Snapshot, message)


def test_another_release_may_know_more_and_less():
    message = to_message(SNAPSHOT)
    message["of a later release"] = 1
    del message["sessions"][0]["perplexity"]
    assert from_message(Snapshot, message).sessions[0].perplexity is None
    del message["version"]
    with pytest.raises(ValueError, match="version"):
        from_message(Snapshot, message)


def test_every_key_is_described():
    for cls in VIEWS:
        for field in fields(cls):
            assert field.name in (cls.__doc__ or ""), f"{cls.__name__}.{field.name}"


def test_details_travel():
    details = Details(session="s", time=1.0, topics=(Topic(0, 0.5, (1, 2), (0.3, 0.2), ("a", "b")),))
    details = Details(session="s", time=1.0, topics=details.topics, history=(Point(1.0, 2, 3.0),))
    assert from_message(Details, to_message(details)) == details


@pytest.mark.parametrize(
    ("title", "kinds"),
    [
        ("## Keys of the JSON", [Snapshot]),
        ("### A training run", [SessionView]),
        ("### A worker", [WorkerView]),
        ("### Counts", [Totals]),
        ("### Events", [JobEvent, Incident, SessionEnd]),
    ],
)
def test_every_key_is_documented(title: str, kinds: list[type]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text("utf-8")
    section = page.split(f"\n{title}\n")[1].split("\n#")[0]
    tables: list[list[str]] = []
    for line in section.splitlines():
        if line.startswith("| key"):
            tables.append([])
        elif line.startswith("| `"):
            tables[-1] += re.findall(r"`(\w+)`", line.split(" | ")[0])
    for kind, keys in zip(kinds, tables, strict=True):
        assert sorted(keys) == sorted(field.name for field in fields(kind))
