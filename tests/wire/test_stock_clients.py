"""A program that never imports us, with only PYRO_SERIALIZER=pickle, is served like any other."""

from __future__ import annotations

from collections.abc import Callable

from distcorpus import wire

CALLS = """
import sys, numpy as np, scipy.sparse, Pyro4
from gensim.corpora import Dictionary
echo = Pyro4.Proxy(sys.argv[1])
assert echo.echo({"a": [1, 2.5, None, "b"]}) == {"a": [1, 2.5, None, "b"]}
for array in (np.arange(1e5), np.asfortranarray(np.eye(300, 400)), np.arange(10)[::2], np.zeros((0, 3))):
    np.testing.assert_array_equal(echo.echo(array), array)
    echo.echo(array)[...] = 0
sparse = scipy.sparse.random(500, 400, 0.1, "csc")
assert (echo.echo(sparse) != sparse).nnz == 0
assert echo.echo(Dictionary([["a", "b"]])).token2id == {"a": 0, "b": 1}
print("served")
"""

ERRORS = """
import sys, Pyro4
proxy = Pyro4.Proxy(sys.argv[1])
for name in sys.argv[2:]:
    try:
        getattr(proxy, name)()
    except Exception as error:
        assert any("in " + name in line for line in error._pyroTraceback)
        print(type(error).__module__, type(error).__name__, error)
"""

NAMES = """
import sys, Pyro4
from gensim import utils
ns = utils.getNS(host="127.0.0.1", port=int(sys.argv[1]))
print(sorted(ns.list(prefix="gensim.")), Pyro4.Proxy(ns.list()["gensim.lda_dispatcher"]).echo(3))
Pyro4.config.NS_PORT = int(sys.argv[1])
print(Pyro4.Proxy("PYRONAME:gensim.lsi_dispatcher").echo(4))
"""


def test_it_calls_with_arrays_and_gensim_objects(stock_python: Callable[..., str], daemon: wire.Daemon):
    assert stock_python(CALLS, daemon.uri("echo")) == "served\n"


class WorkerLost(RuntimeError):
    """Known here only."""


class Failing:
    @wire.expose
    def fail_ours(self) -> None:
        raise WorkerLost("w1 is lost")

    @wire.expose
    def fail_builtin(self) -> None:
        raise ValueError("a count is negative")

    @wire.expose
    def fail_pyro(self) -> None:
        raise wire.NamingError("no workers")


def test_it_gets_exceptions_that_it_knows(stock_python: Callable[..., str], daemon: wire.Daemon):
    daemon.serve("failing", Failing())
    printed = stock_python(ERRORS, daemon.uri("failing"), "fail_ours", "fail_builtin", "fail_pyro")
    assert printed.splitlines() == [
        "builtins RuntimeError w1 is lost",
        "builtins ValueError a count is negative",
        "Pyro4.errors NamingError no workers",
    ]


def test_it_finds_a_dispatcher_as_gensim_does(stock_python: Callable[..., str], daemon: wire.Daemon):
    name_server = wire.NameServerDaemon(port=0)
    name_server.start()
    ns = wire.find("127.0.0.1", name_server.port)
    for name in (wire.names.LSI_DISPATCHER, wire.names.LDA_DISPATCHER):
        wire.register(ns, name, daemon.uri("echo"))
    printed = stock_python(NAMES, str(name_server.port))
    name_server.stop()
    assert printed.splitlines() == ["['gensim.lda_dispatcher', 'gensim.lsi_dispatcher'] 3", "4"]
