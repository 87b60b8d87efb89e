"""Run what is built on gensim's models with ours in their place, in throw-away environments; compare.

Each suite runs three times, each time in a process of its own: with gensim's classes (the control), with ours
here, and with ours on a `LocalCluster`. A test that passes in the control has to pass with ours; every
difference that is not one of `KNOWN` is printed, and makes the exit status 1.

    python scripts/thirdparty.py [--suites NAME ...] [--environments DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Suite:
    """What is run, and what it needs.

    Attributes
    ----------
    tests : tuple of str
        Modules; or files of this folder, or of `source`.
    packages : tuple of str
        What is installed besides distcorpus.
    alone : tuple of str
        What is installed without what it depends on.
    source : str, optional
        A package whose source distribution has the tests.
    """

    tests: tuple[str, ...]
    packages: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()
    source: str | None = None


def _gensim(name: str) -> Suite:
    return Suite((f"gensim.test.test_{name}",), ("testfixtures",))


SUITES = {
    "ensembles": _gensim("ensemblelda"),
    "LdaSeq": _gensim("ldaseqmodel"),
    "coherence": _gensim("coherencemodel"),
    "similarities": _gensim("similarities"),
    "LSI": _gensim("lsimodel"),
    # What OCTIS pins (scikit-learn 1.1.0, numpy and scipy of 2023) exists for no Python that numba and gensim
    # of today have, but its LDA, LSI and measures need none of the old.
    "OCTIS": Suite(
        ("thirdparty_octis.py",), ("pandas", "scikit-learn", "nltk", "requests"), alone=("octis==1.14.0",)
    ),
    "tmtoolkit": Suite(
        ("tests/test_topicmod_evaluate.py",),
        ("tmtoolkit[gensim,test]==0.12.0", "lda", "scikit-learn"),
        source="tmtoolkit==0.12.0",
    ),
    "Orange3-Text": Suite(
        (
            "orangecontrib.text.tests.test_topic_modeling",
            "orangecontrib.text.widgets.tests.test_owtopicmodeling",
            "orangecontrib.text.widgets.tests.test_owldavis",
        ),
        ("orange3-text==1.16.3", "PyQt5", "PyQtWebEngine"),
    ),
    "shorttext": Suite(("thirdparty_shorttext.py",), ("shorttext==4.1.0",)),
}
#: Tests that cannot pass with other classes in the place of gensim's, and why.
KNOWN = {
    "test_backwards_compatibility_with_persisted_model": "the very numbers of gensim's training of a seed",
    "test_add_models": "LdaMulticore, which is no subclass of what stands in the place of LdaModel",
}
WAYS = ("gensim", "here", "cluster")
TIMEOUT = 1800


def make_environment(suite: Suite, folder: Path) -> str:
    """Make an environment with this checkout and what a suite needs; return its interpreter."""
    python = str(folder / "bin" / "python")
    if not Path(python).exists():
        venv.create(folder, with_pip=True)
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for options in (["pytest", *suite.packages, str(HERE.parent)], ["--no-deps", *suite.alone]):
        if len(options) > 1:
            _run([*install, *options])
    return python


def find_tests(suite: Suite, python: str, folder: Path) -> list[str]:
    """Return pytest's arguments for a suite's tests, fetched if need be."""
    if suite.source is None:
        files = [str(HERE / test) if test.endswith(".py") else test for test in suite.tests]
        return ["--pyargs", *files]
    download = [python, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    _run([*download, "-d", str(folder), suite.source])
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    (root,) = (path for path in folder.iterdir() if path.is_dir())
    return [str(root / test) for test in suite.tests]


def run(python: str, tests: list[str], way: str) -> tuple[float, dict[str, str]]:
    """Run tests; return the seconds and what became of each."""
    with tempfile.TemporaryDirectory(prefix="thirdparty-") as folder:
        found = Path(folder) / "outcomes.json"
        _run([python, str(HERE / "thirdparty_runner.py"), way, str(found), *tests], cwd=folder)
        outcomes = json.loads(found.read_text("utf-8"))
    return outcomes["seconds"], outcomes["tests"]


def _run(command: list[str], cwd: str | None = None) -> None:
    variables = {**os.environ, "PYTHONHASHSEED": "0", "QT_QPA_PLATFORM": "offscreen"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, env=variables, cwd=cwd)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {(done.stderr or done.stdout)[-2000:]}")


def differences(control: dict[str, str], ours: dict[str, str]) -> Iterator[str]:
    """Yield the tests that passed in the control and, against what is known, not with ours, and why."""
    for test, outcome in control.items():
        if outcome == "passed" and test.rsplit("::", 1)[-1] not in KNOWN and ours.get(test) != "passed":
            yield f"{test}: {ours.get(test, 'did not run')}"


def main() -> None:
    """Run the suites and print the table."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--suites", nargs="*", choices=SUITES, default=list(SUITES))
    parser.add_argument("--environments", type=Path, help="keep the environments here, and use what is there")
    options = parser.parse_args()
    failed: list[str] = []
    print("| suite | pass with gensim | ours, here | ours, on a cluster | seconds | differences |")
    print("|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(prefix="thirdparty-") as temporary:
        environments = options.environments or Path(temporary)
        for name in options.suites:
            suite = SUITES[name]
            own = "gensim" if suite.packages == ("testfixtures",) else name
            try:
                python = make_environment(suite, environments.resolve() / own)
                tests = find_tests(suite, python, Path(tempfile.mkdtemp(dir=temporary)))
                found = {way: run(python, tests, way) for way in WAYS}
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                failed.append(f"{name}: {error}")
                print(f"| {name} | cannot be run here, see below |  |  |  |  |", flush=True)
                continue
            control = found["gensim"][1]
            worse = [
                f"{name}, {way}: {text}" for way in WAYS[1:] for text in differences(control, found[way][1])
            ]
            if "passed" not in control.values():
                worse.append(f"{name}: nothing passes in the control: {control}")
            failed += worse
            passed = " | ".join(str(list(found[way][1].values()).count("passed")) for way in WAYS)
            seconds = ", ".join(f"{found[way][0]:.1f}" for way in WAYS)
            print(f"| {name} | {passed} | {seconds} | {len(worse)} |", flush=True)
    print("\n".join(failed))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
