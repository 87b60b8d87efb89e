"""What a dispatcher answers to our models, held against what was asked before anything is made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from distcorpus.algorithms.online import Progress

#: Events of one answer.
MOST_EVENTS = 100_000
_PROGRESS = {field.name for field in fields(Progress)}
#: What an event of each kind has, beside its kind.
_EVENTS: dict[str, dict[str, tuple[type, ...]]] = {
    "pass": {"pass_": (int,)},
    "perplexity": {"per_word": (float,), "documents": (int,), "words": (float,)},
    "update": {
        "pass_": (int,),
        "documents": (int,),
        "of": (int,),
        "updates": (int,),
        "rho": (float,),
        "merged": (int,),
        "workers": (int,),
    },
}


class FalseDispatcherError(RuntimeError):
    """What answers is no dispatcher of ours, or a broken one."""


def refuse(method: str, what: str) -> FalseDispatcherError:
    """Return the error for an answer that cannot be."""
    return FalseDispatcherError(
        f"the dispatcher's answer to {method!r} is refused: {what}. What the name server leads to is no "
        "distcorpus dispatcher of this version, or a broken one: see 'distcorpus status', and restart it"
    )


def check(method: str, answer: Any) -> Any:
    """Return an answer that is of the type that a method has.

    Raises
    ------
    FalseDispatcherError
        It is not.
    """
    read = _READ.get(method)
    if read is not None:
        try:
            read(answer)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise refuse(method, str(error) if type(error) is ValueError else repr(error)) from error
    return answer


def check_array(method: str, what: str, array: Any, shape: tuple[int, ...], dtype: Any = None) -> None:
    """Refuse what is not an array of this shape, and of floats.

    Raises
    ------
    FalseDispatcherError
        It is not.
    """
    if type(array) is not np.ndarray or array.shape != shape:
        raise refuse(method, f"{what} is {_described(array)}, not an array of shape {shape}")
    if array.dtype.kind != "f" or (dtype is not None and array.dtype != dtype):
        raise refuse(method, f"{what} is of {array.dtype}, not of {dtype or 'floats'}")


def check_topics(fetched: Mapping[str, Any], shape: tuple[int, int], dtype: Any, eta: np.ndarray) -> None:
    """Refuse a model that is not of these terms x topics, or holds what is no number.

    Raises
    ------
    FalseDispatcherError
        It does.
    """
    topics, num_topics = fetched["topics"], shape[1]
    check_array("fetch", "the table", topics["table"], shape, dtype)
    check_array("fetch", "the sums", topics["sums"], (num_topics,))
    check_array("fetch", "alpha", fetched["alpha"], (num_topics,))
    check_array("fetch", "eta", fetched["eta"], eta.shape)
    check_array("fetch", "eta", topics["eta"], eta.shape)
    for what, array in (("alpha", fetched["alpha"]), ("eta", fetched["eta"]), ("the sums", topics["sums"])):
        if not np.isfinite(array).all():
            raise refuse("fetch", f"{what} has what is no number")


def check_factors(factors: Any, num_terms: int, num_topics: int) -> None:
    """Refuse what are not U and s of so many terms, and at most so many topics.

    Raises
    ------
    FalseDispatcherError
        They are not.
    """
    if type(factors) not in (tuple, list) or len(factors) != 2:
        raise refuse("finish", f"the factors are {_described(factors)}, not U and s")
    u, s = factors
    if type(s) is not np.ndarray or s.ndim != 1 or len(s) > num_topics:
        raise refuse("finish", f"s is {_described(s)}, not an array of up to {num_topics} numbers")
    check_array("finish", "s", s, s.shape)
    check_array("finish", "U", u, (num_terms, len(s)))
    if not (np.isfinite(s).all() and np.isfinite(u).all()):
        raise refuse("finish", "U or s have what is no number")


def _whole(value: Any, what: str, least: int = 0) -> None:
    if type(value) is not int or not least <= value < 2**63:
        raise ValueError(f"{what} is {_described(value)}, not a whole number from {least}")


def _mapping(value: Any, what: str, names: tuple[str, ...]) -> None:
    if type(value) is not dict or not set(names) <= set(value):
        raise ValueError(f"{what} is {_described(value)}, not a dict of {', '.join(names)}")


def _read_begin(answer: Any) -> None:
    _mapping(answer, "it", ("token", "chunks"))
    if answer["token"] is not None and type(answer["token"]) is not str:
        raise ValueError(f"its token is {_described(answer['token'])}")
    _whole(answer["chunks"], "chunks")


def _read_chunks(answer: Any) -> None:
    if answer is not None:
        _whole(answer, "the number of chunks")


def _read_nothing(answer: Any) -> None:
    if answer is not None:
        raise ValueError(f"it is {_described(answer)}, not None")


def _read_events(answer: Any) -> None:
    _mapping(answer, "it", ("events", "seen", "wanted", "done"))
    _whole(answer["seen"], "the number of events")
    _read_wanted(answer["wanted"])
    if type(answer["done"]) is not bool:
        raise ValueError(f"it is done: {_described(answer['done'])}")
    events = answer["events"]
    if type(events) is not list or len(events) > MOST_EVENTS:
        raise ValueError(f"it has {_described(events)}, not a list of events")
    for event in events:
        _mapping(event, "an event", ("kind",))
        kind = event["kind"]
        if type(kind) is not str or kind not in _EVENTS:
            raise ValueError("there is an event of no known kind")
        for name, types in _EVENTS[kind].items():
            if type(event.get(name)) not in types:
                raise ValueError(f"an event {kind!r} has {_described(event.get(name))} for {name}")
        if "topics" in event:
            for topic, alpha, words, probabilities in event["topics"]:
                _whole(topic, "a topic")
                numbers = type(alpha) is float and all(type(p) is float for p in probabilities)
                if not numbers or len(words) != len(probabilities):
                    raise ValueError("an event has topics that are none")
                for word in words:
                    _whole(word, "a term")
        if "diff" in event and type(event["diff"]) is not float:
            raise ValueError("an event has a diff that is no number")


def _read_fetch(answer: Any) -> None:
    _mapping(answer, "it", ("topics", "alpha", "eta", "num_updates", "progress"))
    _mapping(answer["topics"], "its topics", ("eta", "table", "scale", "sums", "numdocs"))
    if type(answer["topics"]["scale"]) is not float or not 0 < answer["topics"]["scale"] < np.inf:
        raise ValueError("the topics' scale is no positive number")
    _whole(answer["topics"]["numdocs"], "numdocs")
    _whole(answer["num_updates"], "num_updates")
    if type(answer["progress"]) is not dict or set(answer["progress"]) != _PROGRESS:
        raise ValueError("its progress is none")
    for name, value in answer["progress"].items():
        _whole(value, f"progress {_described(name)}")


def _read_wanted(requests: Any) -> None:
    if type(requests) is not list or len(requests) > MOST_EVENTS:
        raise ValueError(f"it wants {_described(requests)}, not a list of documents")
    for number, _ in requests:
        _whole(number, "the number of a request")


def _read_finish(answer: Any) -> None:
    _mapping(answer, "it", ("factors", "rounds", "wanted", "workers", "folds"))
    _read_wanted(answer["wanted"])
    for name in ("rounds", "workers", "folds"):
        _whole(answer[name], name)


def _read_take(answer: Any) -> None:
    _mapping(answer, "it", ("result", "wanted"))
    _read_wanted(answer["wanted"])
    result = answer["result"]
    if not (result is None or (type(result) is np.ndarray and result.dtype.kind == "f")):
        raise ValueError(f"it has {_described(result)}, not an array of floats")
    if result is None and not answer["wanted"]:
        raise ValueError("it has nothing")


_READ: dict[str, Callable[[Any], None]] = {
    "begin": _read_begin,
    "begin_inference": _read_nothing,
    "go_on": _read_chunks,
    "put": _read_nothing,
    "end": _read_nothing,
    "events": _read_events,
    "fetch": _read_fetch,
    "finish": _read_finish,
    "take": _read_take,
    "ready": lambda answer: _whole(answer, "the number of workers"),
}


def _described(value: Any) -> str:
    if type(value) is np.ndarray:
        return f"an array of {value.dtype} {value.shape}"[:100]
    if type(value) in (int, float, str, type(None)):
        text = repr(value) if type(value) is not int or abs(value) < 10**18 else "a huge number"
        return text if len(text) <= 60 else f"{text[:60]}..."
    return f"a {type(value).__name__}"[:100]
