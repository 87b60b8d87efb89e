"""Pyro4 is configured where something speaks over the wire, and where gensim's models might; nowhere else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import distcorpus

#: What an import changes of Pyro4, or nothing.
LOOK = """
import sys

def look():
    import Pyro4.core
    from Pyro4 import message, socketutil, util
    from Pyro4.configuration import config
    kinds = (Pyro4.core.Proxy, Pyro4.core.Daemon, Pyro4.core.URI, message.Message)
    seen = {f"{kind.__name__}.{key}": value for kind in kinds for key, value in vars(kind).items()}
    for module in (Pyro4.core, message, socketutil, util):
        seen |= {f"{module.__name__}.{key}": value for key, value in vars(module).items()}
    seen |= {f"config.{name}": getattr(config, name) for name in config.__slots__}
    return {key: (id(value), repr(value)) for key, value in seen.items()}

def changed(before):
    after = look()
    return sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
"""
NAMES = sorted(
    f"distcorpus.algorithms.{path.stem}"
    for path in (Path(distcorpus.__file__).parent / "algorithms").glob("[!_]*.py")
)
THE_MATHEMATICS = f"import {', '.join(NAMES)}"
#: Pyro4 as the cluster wants it.
CONFIGURED = """
import Pyro4.util
from Pyro4.configuration import config
serializer = type(Pyro4.util.get_serializer("pickle")).__name__
print(config.SERIALIZER, serializer, sum("BeforeGensim" in repr(finder) for finder in sys.meta_path))
"""


def run(*lines: str) -> list[str]:
    program = "\n".join(["import sys", *lines])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_the_mathematics_changes_nothing_of_pyro4():
    assert run(LOOK, "before = look()", THE_MATHEMATICS, "print(*changed(before))") == []
    assert run(LOOK, "before = look()", "import distcorpus", "print(*changed(before))") == []
    changed = run(LOOK, "before = look()", "import distcorpus.wire", "print(*changed(before))")
    assert {"config.SERIALIZER", "config.SERIALIZERS_ACCEPTED", "Pyro4.socketutil.sendData"} < set(changed)


def test_the_mathematics_does_without_pyro4():
    loaded = "print(*{'Pyro4', 'serpent', 'gensim', 'distcorpus.wire'} & set(sys.modules))"
    assert run(THE_MATHEMATICS, loaded) == []


@pytest.mark.parametrize(
    "lines",
    [
        ["import distcorpus", "import gensim"],
        ["import distcorpus", "from gensim.models import LsiModel"],
        ["import Pyro4", "import distcorpus", "import gensim.models.ldamodel"],
        ["import gensim, Pyro4", "import distcorpus"],
        [THE_MATHEMATICS, "import distcorpus", "import gensim"],
        ["import distcorpus", "distcorpus.LsiModel"],
        ["from distcorpus import LdaModel"],
        ["import distcorpus.dispatcher.dispatcher", "import gensim"],
        ["from distcorpus import *"],
    ],
    ids="; ".join,
)
@pytest.mark.long
def test_with_gensim_it_is_configured(lines):
    """In whichever order they come."""
    assert run(*lines, CONFIGURED) == ["pickle", "RestrictedPickleSerializer", "0"]


@pytest.mark.parametrize(
    "line",
    [
        "distcorpus.LocalCluster",
        "distcorpus.wire.use_tls",
        "import distcorpus.cli.worker",
        "import distcorpus.engines.pyro",
        "import distcorpus.worker.daemon",
    ],
)
def test_what_speaks_over_the_wire_configures_it(line):
    assert run("import distcorpus", line, CONFIGURED)[:2] == ["pickle", "RestrictedPickleSerializer"]


def test_what_is_not_there_is_said():
    with pytest.raises(AttributeError, match="module 'distcorpus' has no attribute 'Cluster'"):
        distcorpus.Cluster  # noqa: B018


def test_what_cannot_be_configured_stops_gensim(monkeypatch):
    """Each time, and says why: its models would speak to a cluster in another way than was asked for."""
    monkeypatch.setenv("DISTCORPUS_ALLOW", "nonsense")
    program = (
        "import distcorpus\n"
        "for _ in range(2):\n"
        "    try:\n"
        "        import gensim\n"
        "    except ValueError as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.count("nonsense") == 2


@pytest.mark.long
def test_models_and_corpora_do_without_what_only_posix_has():
    """On Windows programs train here, or with a cluster elsewhere."""
    printed = run(
        "import asyncio, multiprocessing, os, tempfile",  # what is Python's own has two forms
        "import gensim.models, numba",
        "sys.modules |= dict.fromkeys(('fcntl', 'resource', 'pwd', 'grp', 'termios'))",
        "del os.getuid, os.fork, os.sched_getaffinity, os.sysconf",
        "import numpy as np, scipy.sparse",
        "from distcorpus import Corpus, LdaModel, LsiModel",
        "documents = scipy.sparse.random(30, 50, 0.2, format='csc', random_state=0)",
        "documents.data = np.ceil(documents.data * 3)",
        "print(*LsiModel(documents, num_topics=3).projection.s, LdaModel(documents, num_topics=3))",
    )
    assert len(printed) > 3
