"""What arrives for an argument is what the method says, before the method runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from Pyro4 import util

from distcorpus import wire
from distcorpus.dispatcher.dispatcher import Dispatcher
from distcorpus.dispatcher.gensim_protocol import GensimLda, GensimLsi
from distcorpus.dispatcher.model_protocol import ModelLda, ModelLsi
from distcorpus.wire.exposed import fits
from distcorpus.worker.daemon import Worker


@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [
        (str, ["", "a"], [None, 1, b"a", ("a",)]),
        (int, [1, True, np.int32(1)], [1.0, "1", None]),
        (float, [1, 1.5, np.float32(1), np.int8(1)], ["1", None, 1j, [1.0]]),
        (bool, [True, 1, np.bool_(True)], ["", None, 1.5]),
        (None, [None], [0, ""]),
        (str | None, ["a", None], [1, ()]),
        (list[str], [[], ["a"]], [("a",), ["a", 1], "a", None]),
        (Iterable[str], [["a"], ("a",), {"a"}], ["a", [1], {"a": 1}]),
        (dict[str, Any], [{}, {"a": ()}], [{1: 2}, [], None]),
        (dict[str, int], [{"a": 1}], [{"a": "b"}]),
        (np.ndarray, [np.ones(2)], [[1.0], 1.0]),
        (Any, [None, (), NotImplemented], []),
    ],
    ids=str,
)
def test_a_hint_is_checked(hint: Any, good: list[Any], bad: list[Any]):
    assert all(fits(value, hint) for value in good)
    assert not any(fits(value, hint) for value in bad)


def test_an_unknown_hint_is_an_error_of_the_method_s():
    for hint in (tuple[int, str], "str", set[str]):
        with pytest.raises(TypeError, match="does not know"):
            fits(("a",) if hint != set[str] else {"a"}, hint)


def test_the_method_does_not_run(daemon: wire.Daemon):
    ran: list[Any] = []

    class Served:
        @wire.expose
        def take(self, name: str, numbers: list[int] | None = None) -> int:
            ran.append(name)
            return len(numbers or ())

    daemon.serve("served", Served())
    proxy = wire.connect(daemon.uri("served"))
    assert proxy.take("a", [1, 2]) == 2
    with pytest.raises(TypeError, match=r"take\(\) takes name as str, not as a tuple of something else"):
        proxy.take(((),))
    with pytest.raises(TypeError, match=r"takes numbers as list\[int\] \| None, not as a list"):
        proxy.take("a", numbers=["b"])
    assert ran == ["a"]


def test_every_method_that_a_daemon_serves_checks_its_arguments(daemon: wire.Daemon):
    description = type(daemon.objectsById["Pyro.Daemon"])
    # Those that the method checks.
    free = {(parameter, Any) for parameter in ("id2word", "alpha", "eta", "job", "state")}
    for cls in (description, wire.NameServer, Dispatcher, GensimLsi, GensimLda, ModelLsi, ModelLda, Worker):
        for name in util.get_exposed_members(cls)["methods"]:
            hints = getattr(cls, name).checks_arguments()
            hints.pop("return", None)
            for parameter, hint in hints.items():
                assert hint is not Any or (parameter, hint) in free, f"{cls.__name__}.{name}"
                fits(object(), hint)
