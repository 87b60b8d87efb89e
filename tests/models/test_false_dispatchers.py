"""A dispatcher, or a name server, that lies to a program: no code runs, and there is one clear error."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from gensim import models as gensims
from Pyro4.core import URI
from Pyro4.errors import SecurityError

from distcorpus import LdaModel, LsiModel
from distcorpus.kernels.build import this_build
from distcorpus.models import _cluster
from distcorpus.wire import Daemon, expose, names
from distcorpus.wire.location import use_nameserver

DOCUMENTS = [[(0, 1), (1, 2)], [(1, 1), (3, 1)], [(2, 3)]] * 4
NUM_TERMS, NUM_TOPICS = 4, 2


class RunsCode:
    """Makes a folder where it is unpickled in earnest."""

    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return os.mkdir, (str(self.witness),)


#: Documents that nobody trains on.
OTHERS = ("a" * 64, None, 0, 1, 1, 1.0, 1.0, 0)

UPDATE = {
    "kind": "update",
    "pass_": 0,
    "documents": 12,
    "of": 12,
    "updates": 1,
    "rho": 0.5,
    "merged": 12,
    "converged": 12,
    "numdocs": 12,
    "workers": 1,
}


def happened(*events: Any, **answer: Any) -> dict[str, Any]:
    """What `events` answers at the end."""
    return {"events": list(events), "seen": len(events), "wanted": [], "done": True} | answer


TOPICS = {
    "eta": np.full(NUM_TERMS, 0.5, np.float32),
    "table": np.ones((NUM_TERMS, NUM_TOPICS), np.float32),
    "scale": 1.0,
    "sums": np.full(NUM_TOPICS, 4.0),
    "numdocs": 12,
}
FETCHED = {
    "topics": TOPICS,
    "alpha": np.full(NUM_TOPICS, 0.5, np.float32),
    "eta": np.full(NUM_TERMS, 0.5, np.float32),
    "num_updates": 12,
    "progress": {"pass_": 1, "chunk": 0, "documents": 0, "updates": 1},
}
FACTORS = np.eye(NUM_TERMS, NUM_TOPICS), np.ones(NUM_TOPICS)
HONEST = {
    "hello": {"build": this_build(), "may_differ": []},
    "ready": 1,
    "agree": 2**27,
    "begin": {"token": None, "chunks": 0},
    "begin_inference": None,
    "put": None,
    "end": None,
    "events": happened(UPDATE),
    "fetch": FETCHED,
    "finish": {"factors": FACTORS, "rounds": 1, "wanted": [], "workers": 1, "folds": 0},
    "take": {"result": np.ones((12, NUM_TOPICS), np.float32), "wanted": []},
    "get_slice": np.zeros(8, np.uint8),
}


#: Where the name server leads unless it is told otherwise: to the dispatcher.
THERE = object()


@expose
class Pretender:
    """What a dispatcher's object for a model would be, with answers of its own."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self._answers = answers

    def hello(self, build: Any) -> Any:
        return self._answers["hello"]

    def ready(self) -> Any:
        return self._answers["ready"]

    def agree(self, limit: Any) -> Any:
        return self._answers["agree"]

    def begin(self, task: Any) -> Any:
        return self._answers["begin"]

    def begin_inference(self, task: Any) -> Any:
        return self._answers["begin_inference"]

    def put(self, indptr: Any, indices: Any, data: Any) -> Any:
        return self._answers["put"]

    def end(self) -> Any:
        return self._answers["end"]

    def events(self, seen: Any, timeout: Any) -> Any:
        return self._answers["events"]

    def fetch(self) -> Any:
        return self._answers["fetch"]

    def finish(self, timeout: Any) -> Any:
        return self._answers["finish"]

    def take(self) -> Any:
        return self._answers["take"]

    def get_slice(self, number: Any, start: Any, size: Any) -> Any:
        return self._answers["get_slice"]


@expose
class NameServer:
    """A name server that leads wherever it is told to."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def lookup(self, name: str) -> Any:
        return self._answer


@contextmanager
def pretending(answers, leads_to=THERE):
    """Serve false answers; yields where the name server is that leads to them."""
    daemon = Daemon()
    for name in (names.LDA_MODELS, names.LSI_MODELS):
        daemon.serve(name, Pretender({**HONEST, **answers}))
    daemon.start()
    front = Daemon()
    front.serve(
        names.NAME_SERVER, NameServer(daemon.uri(names.LDA_MODELS) if leads_to is THERE else leads_to)
    )
    front.start()
    try:
        yield {"host": "127.0.0.1", "port": front.port, "broadcast": False}
    finally:
        front.stop(grace=0)
        daemon.stop(grace=0)


def lda(where):
    return LdaModel(
        DOCUMENTS,
        id2word=dict.fromkeys(range(NUM_TERMS), "a"),
        num_topics=NUM_TOPICS,
        random_state=1,
        distributed=True,
        ns_conf=where,
    )


def lsi(where):
    return LsiModel(
        DOCUMENTS,
        id2word=dict.fromkeys(range(NUM_TERMS), "a"),
        num_topics=NUM_TOPICS,
        distributed=True,
        ns_conf=where,
    )


def inference(where):
    model = LdaModel(
        DOCUMENTS,
        id2word=dict.fromkeys(range(NUM_TERMS), "a"),
        num_topics=NUM_TOPICS,
        random_state=1,
        ns_conf=where,
    )
    return list(model.transform(DOCUMENTS, distributed=True))


def bound(where):
    model = lda(where)
    return model.log_perplexity(DOCUMENTS * 400)


@pytest.mark.parametrize("use", [lda, lsi, inference])
def test_an_honest_one_is_used(use):
    with pretending({}) as where:
        assert use(where)


def topics(**changed):
    return {**FETCHED, "topics": {**TOPICS, **changed}}


def sliced(*mark):
    return {"array in slices": mark}


NAN = np.full(NUM_TOPICS, np.nan, np.float32)
LIES = [
    (lda, "begin", None),
    (lda, "begin", {"token": 3, "chunks": 0}),
    (lda, "begin", {"token": None, "chunks": -1}),
    (lda, "begin", {"token": None, "chunks": 2**70}),
    (lda, "begin", {"token": None, "chunks": "0"}),
    (lda, "put", "more"),
    (lda, "end", {}),
    (lda, "events", None),
    (lda, "events", [UPDATE]),
    (lda, "events", {"events": [], "done": True}),
    (lda, "events", happened(seen=-1)),
    (lda, "events", happened(seen="1")),
    (lda, "events", happened(done=1)),
    (lda, "events", happened(events=UPDATE)),
    (lda, "events", happened("pass")),
    (lda, "events", happened({"kind": "other"})),
    (lda, "events", happened({"kind": ["pass"]})),
    (lda, "events", happened(*[{"kind": "pass", "pass_": 0}] * 200_000)),
    (lda, "events", happened({**UPDATE, "updates": "1"})),
    (lda, "events", happened({**UPDATE, "of": None})),
    (lda, "events", happened({**UPDATE, "diff": 0.1, "topics": [(0, 0.5, [0], ["a"])]})),
    (lda, "events", happened({**UPDATE, "diff": 0.1, "topics": [0]})),
    (lda, "events", happened({"kind": "perplexity", "per_word": "low", "documents": 1, "words": 1.0})),
    (lda, "fetch", None),
    (lda, "fetch", {}),
    (lda, "fetch", topics(table=None)),
    (lda, "fetch", topics(table=np.ones((NUM_TERMS + 1, NUM_TOPICS), np.float32))),
    (lda, "fetch", topics(table=np.ones((NUM_TERMS, NUM_TOPICS)))),
    (lda, "fetch", topics(table=np.ones((NUM_TERMS, NUM_TOPICS), np.int64))),
    (lda, "fetch", topics(sums=np.ones(3))),
    (lda, "fetch", topics(scale=np.nan)),
    (lda, "fetch", topics(scale=-1.0)),
    (lda, "fetch", topics(numdocs=-1)),
    (lda, "fetch", topics(eta=np.ones(7, np.float32))),
    (lda, "fetch", {**FETCHED, "alpha": NAN}),
    (lda, "fetch", {**FETCHED, "alpha": np.ones(9, np.float32)}),
    (lda, "fetch", {**FETCHED, "num_updates": 1e9}),
    (lda, "fetch", {**FETCHED, "progress": [1]}),
    (lda, "fetch", {**FETCHED, "progress": {"pass_": "1"}}),
    (lda, "fetch", {**FETCHED, "progress": {**FETCHED["progress"], "more": 1}}),
    (lda, "fetch", topics(table=sliced(0, "<f4", (2**40, 2)))),
    (lda, "fetch", topics(table=sliced(0, "|O", (4, 2)))),
    (lda, "fetch", topics(table=sliced(0, "<f4", (-4, 2)))),
    (lda, "fetch", topics(table=sliced(0, "<f4", (4.5, 2)))),
    (lda, "fetch", topics(table=sliced(0, "<f4"))),
    (lda, "fetch", topics(table={"array in slices": 3})),
    (lda, "fetch", topics(table=sliced("0", "<f4", (4, 2)))),
    (lda, "fetch", topics(table=sliced(0, "<f4", (4, 2)))),  # the slice is not as long
    (lda, "agree", 0),
    (lda, "agree", -5),
    (lda, "agree", "much"),
    (lda, "agree", 2**70),
    (lsi, "ready", "one"),
    (lsi, "ready", None),
    (lsi, "begin", []),
    (lsi, "finish", None),
    (lsi, "finish", {"factors": None}),
    (lsi, "finish", {"factors": 3, "rounds": 1, "wanted": [], "workers": 1, "folds": 0}),
    (lsi, "finish", {"factors": FACTORS, "rounds": "1", "wanted": [], "workers": 1, "folds": 0}),
    (lsi, "finish", {"factors": FACTORS, "rounds": 1, "wanted": [], "workers": 1}),
    (lsi, "finish", {"factors": FACTORS, "rounds": 1, "wanted": [], "workers": 1, "folds": -1}),
    (lsi, "finish", {"factors": (FACTORS[0],), "rounds": 1, "wanted": [], "workers": 1, "folds": 0}),
    (
        lsi,
        "finish",
        {"factors": (FACTORS[0][1:], FACTORS[1]), "rounds": 1, "wanted": [], "workers": 1, "folds": 0},
    ),
    (
        lsi,
        "finish",
        {"factors": (FACTORS[0] * np.nan, FACTORS[1]), "rounds": 1, "wanted": [], "workers": 1, "folds": 0},
    ),
    (
        lsi,
        "finish",
        {
            "factors": (np.eye(NUM_TERMS), np.ones(NUM_TERMS)),
            "rounds": 1,
            "wanted": [],
            "workers": 1,
            "folds": 0,
        },
    ),
    (
        lsi,
        "finish",
        {"factors": (FACTORS[0], np.array(["a", "b"])), "rounds": 1, "wanted": [], "workers": 1, "folds": 0},
    ),
    (lsi, "finish", {"factors": FACTORS, "rounds": 1, "wanted": 3, "workers": 1, "folds": 0}),
    (lsi, "finish", {"factors": None, "rounds": 1, "wanted": [(0, "x")], "workers": 1, "folds": 0}),
    (lsi, "finish", {"factors": None, "rounds": 1, "wanted": [("0", OTHERS)], "workers": 1, "folds": 0}),
    (lsi, "finish", {"factors": None, "rounds": 1, "wanted": [(0, OTHERS)], "workers": 1, "folds": 0}),
    (lda, "events", happened(wanted=3)),
    (lda, "events", happened(wanted=[("0", OTHERS)])),
    (lda, "events", happened(wanted=[(0, OTHERS)])),
    (lda, "events", happened(wanted=[(0, ())])),
    (lda, "events", happened(wanted=[(0, "/etc/passwd")])),
    (inference, "begin_inference", 3),
    (inference, "take", None),
    (inference, "take", np.ones((12, NUM_TOPICS), np.float32)),
    (inference, "take", {"result": None, "wanted": []}),
    (inference, "take", {"result": None, "wanted": [(0, OTHERS)]}),
    (inference, "take", {"result": None, "wanted": [("0", OTHERS)]}),
    (inference, "take", {"result": [1.0], "wanted": []}),
    (inference, "take", {"result": np.ones((11, NUM_TOPICS), np.float32), "wanted": []}),
    (inference, "take", {"result": np.ones((12, NUM_TOPICS), np.int64), "wanted": []}),
    (inference, "take", {"result": np.array(["a"] * 12), "wanted": []}),
]


@pytest.mark.parametrize(
    ("use", "method", "answer"), LIES, ids=[f"{use.__name__}-{m}-{n}" for n, (use, m, _) in enumerate(LIES)]
)
def test_a_false_answer(use, method, answer, monkeypatch):
    monkeypatch.setattr(_cluster, "RECONNECT_TIMEOUT", 2.0)
    with (
        pretending({method: answer}) as where,
        pytest.raises(RuntimeError, match=r"the dispatcher's answer to '\w+' is refused: \w.*broken one"),
    ):
        use(where)


@pytest.mark.parametrize("method", ["begin", "put", "events", "fetch", "agree"])
def test_an_answer_that_brings_code(method, tmp_path):
    witness = tmp_path / "witness"
    with (
        pretending({method: RunsCode(witness)}) as where,
        pytest.raises(RuntimeError, match=r"is refused: refused \w+\.mkdir"),
    ):
        lda(where)
    assert not witness.exists()


@pytest.mark.parametrize(
    "answer",
    [
        "PYRONAME:somebody",
        "PYROMETA:a,b",
        "PYRO:object@./u:/tmp/socket",
        "PYRO:object",
        "http://host/",
        "",
        "x" * 100_000,
        None,
        7,
        ["PYRO:a@b:1"],
        {"uri": "PYRO:a@b:1"},
        ("PYRO:a@b:1", None),
        np.ones(3),
    ],
    ids=lambda answer: str(answer)[:20],
)
@pytest.mark.parametrize("use", [lda, lsi])
def test_a_name_server_that_leads_nowhere(use, answer):
    with (
        pretending({}, leads_to=answer) as where,
        pytest.raises(RuntimeError, match=r"no cluster to train on.*leads distcorpus.* to no host and port"),
    ):
        use(where)


def test_a_name_server_that_brings_code(tmp_path):
    witness = tmp_path / "witness"
    with (
        pretending({}, leads_to=RunsCode(witness)) as where,
        pytest.raises(RuntimeError, match=r"no cluster to train on.*refused \w+\.mkdir"),
    ):
        lda(where)
    assert not witness.exists()


def test_a_name_server_that_leads_to_another_object():
    daemon = Daemon()
    uri = daemon.serve("other", NameServer(1))
    daemon.start()
    with (
        pretending({}, leads_to=uri) as where,
        pytest.raises(RuntimeError, match="does not say which it is"),
    ):
        lda(where)
    daemon.stop(grace=0)


@expose
class GensimPretender:
    """What gensim's unmodified model talks to, with a state that brings code."""

    def __init__(self, state: Any) -> None:
        self._state = state

    def initialize(self, **options: Any) -> None: ...

    def getworkers(self) -> list[str]:
        return ["one"]

    def reset(self) -> None: ...

    def putjob(self, job: Any) -> None: ...

    def getstate(self) -> Any:
        return self._state


def test_gensims_class_takes_no_code_either(tmp_path):
    witness = tmp_path / "witness"
    daemon = Daemon()
    uri = daemon.serve(names.LSI_DISPATCHER, GensimPretender(RunsCode(witness)))
    daemon.start()
    with pretending({}, leads_to=URI(uri)) as where:
        undo = use_nameserver(where["host"], where["port"])
        try:
            with pytest.raises(SecurityError, match=r"refused \w+\.mkdir"):
                gensims.LsiModel(
                    DOCUMENTS,
                    id2word=dict.fromkeys(range(NUM_TERMS), "a"),
                    num_topics=NUM_TOPICS,
                    distributed=True,
                )
        finally:
            undo()
    daemon.stop(grace=0)
    assert not witness.exists()
