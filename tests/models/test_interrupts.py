"""A training in a process of its own that is interrupted, or killed, and gone on with in this one."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys

import numpy as np
import pytest

from distcorpus.models import LdaModel

#: Trains, tells of each update, and saves the model when it is interrupted. Its lines are so long that it
#: cannot get far ahead of who reads them.
PROGRAM = """
import pickle, signal, sys
from distcorpus.models import LdaModel

def tell(event):
    print(event["kind"], event.get("updates"), "." * 10000, flush=True)

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
corpus, options, path = pickle.load(sys.stdin.buffer)
model = LdaModel(progress=tell, **options)
try:
    model.update(corpus)
except KeyboardInterrupt:
    model.save(path)
    print("\\ninterrupted", model.interrupted["progress"]["updates"], flush=True)
"""


def train_until(update, corpus, options, path, environment):
    """Start the program and return it when it has told of an update."""
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **environment},
    )
    assert child.stdin is not None
    pickle.dump((corpus, options, path), child.stdin)
    child.stdin.close()
    assert child.stdout is not None
    for line in child.stdout:
        kind, number, _ = line.split()
        if kind == b"update" and int(number) >= update:
            return child
    raise AssertionError("the program ended before that")


def topics(model):
    return model.state.sstats.tobytes(), model.alpha.tobytes()


@pytest.fixture
def options(lee_corpus):
    return {
        "id2word": lee_corpus.dictionary,
        "num_topics": 8,
        "chunksize": 20,
        "random_state": 3,
        "update_chunks": 1,
        "alpha": "auto",
        "passes": 40,
    }


@pytest.fixture
def whole(lee_corpus, options):
    """The topics of a training that nobody interrupts."""
    return topics(LdaModel(lee_corpus.counts, **options))


@pytest.mark.parametrize("distributed", [False, True])
@pytest.mark.long
def test_ctrl_c_leaves_a_model_that_goes_on_to_the_same_bytes(
    cluster, lee_corpus, options, whole, tmp_path, distributed
):
    path = str(tmp_path / "model")
    # A cluster waits for each checkpoint, so that it cannot get far ahead of its client.
    options |= {"distributed": distributed, "checkpoint": str(tmp_path / "checkpoint"), "checkpoint_every": 1}
    child = train_until(7, lee_corpus.counts, options, path, cluster.environ())
    child.send_signal(signal.SIGINT)
    last = child.stdout.read().split()
    child.stdout.close()
    assert child.wait(60) == 0
    assert last[-2] == b"interrupted"
    assert 7 <= int(last[-1]) < 600
    model = LdaModel.load(path)
    np.testing.assert_allclose(model.get_topics().sum(axis=1), 1.0, rtol=1e-5)
    model.progress, model.checkpoint = False, None
    model.update(lee_corpus.counts, resume=True)
    assert topics(model) == whole


def test_a_killed_training_goes_on_from_its_checkpoint_to_the_same_bytes(
    lee_corpus, options, whole, tmp_path
):
    path = str(tmp_path / "checkpoint")
    options |= {"checkpoint": path, "checkpoint_every": 1}
    child = train_until(7, lee_corpus.counts, options, path, {})
    child.kill()  # in the middle of saving a checkpoint, like as not
    child.stdout.close()
    child.wait(60)
    model = LdaModel.load(path)
    assert 7 <= model.interrupted["progress"]["updates"] < 600
    model.progress, model.checkpoint = False, None
    model.update(lee_corpus.counts, resume=True)
    assert topics(model) == whole


#: Computes without end, and interrupts itself when a thread of some name is there.
ENDLESS = """
import logging, os, signal, sys, threading, time
from distcorpus.kernels import EStep
from distcorpus.models import LdaModel

what, name = sys.argv[1:]
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
EStep.warm()
documents = [[(0, 1), (1, 2)], [(1, 1), (2, 3)]] * 20
endless = {"iterations": 10**12, "gamma_threshold": 0.0}
if what == "inference":
    model = LdaModel(documents, num_topics=2)
    vars(model).update(endless)
elif what == "estimate":
    logging.basicConfig(level=logging.INFO)

def press():
    while not any(thread.name.startswith(name) for thread in threading.enumerate()):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=press, daemon=True).start()
try:
    if what == "inference":
        model.inference(documents)
    else:
        LdaModel(documents, num_topics=2, workers=2, eval_every=1 if what == "estimate" else None, **endless)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize(
    ("what", "thread"),
    [("training", "distcorpus-"), ("estimate", "interruptible"), ("inference", "interruptible")],
)
def test_ctrl_c_ends_iterations_without_end(what, thread):
    """Those of the estimate of the perplexity, for the log, and of an inference too."""
    child = subprocess.run(
        [sys.executable, "-c", ENDLESS, what, thread], capture_output=True, text=True, timeout=120
    )
    assert child.stdout == "interrupted\n", child.stderr
