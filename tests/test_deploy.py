"""The recipes in deploy/: what can be known of them without systemd, Docker or Kubernetes running."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from distcorpus.cli.commands import parser

from .cluster.conftest import wait_until

DEPLOY = Path(__file__).parents[1] / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))


def parse(words):
    """Parse a command line of ours, without its program."""
    return parser().parse_args(words)


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
def test_units_start_what_there_is(unit):
    text = unit.read_text("utf-8")
    (start,) = re.findall(r"^ExecStart=\S*/distcorpus (.*)$", text, re.MULTILINE)
    role = unit.stem.removeprefix("distcorpus-").removesuffix("@")
    start = start.replace("$SECURITY", "")
    assert parse(shlex.split(start.replace("$OPTIONS", ""))).command == role
    environment = DEPLOY / "systemd" / f"{role}.env"
    if environment.exists():
        (options,) = re.findall(r"^OPTIONS=(.*)$", environment.read_text("utf-8"), re.MULTILINE)
        parse(shlex.split(start.replace("$OPTIONS", options)))


def environment_of(*texts):
    """What `Environment=` sets, where later lines win."""
    lines = [line for text in texts for line in re.findall(r"^Environment=(.*)$", text, re.MULTILINE)]
    return dict(pair.split("=", 1) for line in lines for pair in shlex.split(line))


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
def test_the_drop_in_without_certificates_has_an_effect_beside_an_environment_file(unit):
    """Whose variables win over those of the unit and of its drop-ins."""
    text = unit.read_text("utf-8")
    environment = environment_of(text, (DEPLOY / "systemd" / "insecure.conf").read_text("utf-8"))
    assert environment["DISTCORPUS_TLS"] == ""
    environment["OPTIONS"] = "--allow a:B"
    (start,) = re.findall(r"^ExecStart=\S*/distcorpus (.*)$", text, re.MULTILINE)
    words = [word for said in shlex.split(start) for word in environment.get(said.lstrip("$"), said).split()]
    assert parse(words).insecure is True
    assert parse(words).allow == ["a:B"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
def test_systemd_does_not_end_what_waits_for_the_name_server(unit):
    text = unit.read_text("utf-8")
    waits = hasattr(parse([unit.stem.removeprefix("distcorpus-").removesuffix("@")]), "wait")
    assert waits == ("TimeoutStartSec=infinity" in text)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd on this machine")
def test_systemd_understands_the_units(tmp_path):
    for unit in UNITS:
        text = unit.read_text("utf-8").replace("/opt/distcorpus/bin/distcorpus", shutil.which("true") or "")
        (tmp_path / unit.name.replace("@", "@main")).write_text(text)
    units = sorted(map(str, tmp_path.iterdir()))
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_containers_of_the_compose_file_start_what_there_is():
    yaml = pytest.importorskip("yaml")
    services = yaml.safe_load((DEPLOY / "docker" / "compose.yaml").read_text("utf-8"))["services"]
    for name in ("head", "worker"):
        assert parse(services[name]["command"]).command == name
        assert services[name]["read_only"] is True
    parse(services["head"]["healthcheck"]["test"][2:])


def test_the_image_has_what_its_commands_need():
    (extras,) = re.findall(r"'\.\[(.*)\]'", (DEPLOY / "docker" / "Dockerfile").read_text("utf-8"))
    assert {"corpus", "dashboard", "metrics", "tls"} <= set(extras.split(","))
    project = (DEPLOY.parent / "pyproject.toml").read_text("utf-8")
    for extra in extras.split(","):
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE)


@pytest.fixture(scope="module")
def manifests():
    yaml = pytest.importorskip("yaml")
    return list(yaml.safe_load_all((DEPLOY / "kubernetes" / "distcorpus.yaml").read_text("utf-8")))


def test_pods_start_what_there_is_and_have_no_rights(manifests):
    pods = [thing["spec"]["template"]["spec"] for thing in manifests if thing["kind"] == "StatefulSet"]
    for pod in pods:
        (container,) = pod["containers"]
        options = parse(container["args"])
        assert options.command == container["name"]
        assert options.bind_port in {port["containerPort"] for port in container["ports"]}
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert pod["securityContext"]["runAsNonRoot"] is True
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert {volume["name"] for volume in pod["volumes"]} <= mounted
    assert len(pods) == 2


def test_services_and_policies_select_the_pods(manifests):
    sets = {thing["spec"]["serviceName"]: thing for thing in manifests if thing["kind"] == "StatefulSet"}
    for thing in manifests:
        name = thing["metadata"]["name"]
        if thing["kind"] in ("Service", "NetworkPolicy") and name in sets:
            spec = thing["spec"]
            selected = spec["selector"] if thing["kind"] == "Service" else spec["podSelector"]["matchLabels"]
            assert selected == sets[name]["spec"]["template"]["metadata"]["labels"]
            assert selected == sets[name]["spec"]["selector"]["matchLabels"]


def test_kubernetes_schemas(manifests):
    schemas = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    for thing in manifests:
        schemas.validate(thing, "1.27", strict=True)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck on this machine")
def test_the_batch_script_has_no_fault_that_shellcheck_knows():
    subprocess.run(["shellcheck", DEPLOY / "slurm" / "distcorpus.sbatch"], check=True)


STUBS = {
    "scontrol": "echo alpha; echo beta",
    "srun": 'echo "$*" >>"$LOG/srun"; while [[ $1 == -* ]]; do shift; done; exec "$@"',
    "python": 'echo "$*" >"$LOG/program"; exec sleep 600',
    "distcorpus": """
        case $1 in
            head) {head} ;;
            worker) exec sleep 600 ;;
        esac""",
}
HEAD = 'echo >"$DISTCORPUS_ADDRESS_FILE"; exec sleep 600'


@pytest.fixture
def batch(tmp_path):
    """Start the batch script, where Slurm's programs are stubs and the head does as told."""
    stubs = tmp_path / "bin"
    stubs.mkdir()
    processes = []

    def start(head):
        for name, does in STUBS.items():
            (stubs / name).write_text(f"#!/bin/bash\n{does.replace('{head}', head)}\n")
            (stubs / name).chmod(0o700)
        process = subprocess.Popen(
            ["bash", DEPLOY / "slurm" / "distcorpus.sbatch", "train.py", "--fast"],
            env={
                "PATH": f"{stubs}:{os.environ['PATH']}",
                "HOME": str(tmp_path),
                "LOG": str(tmp_path),
                "SLURM_JOB_ID": "17",
                "SLURM_JOB_NODELIST": "alpha,beta",
                "SLURM_CPUS_PER_TASK": "16",
            },
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_the_batch_job_ends_all_when_its_time_is_over(batch, tmp_path):
    process = batch(HEAD)
    wait_until(lambda: (tmp_path / "program").exists(), "the program")
    asked = "--overlap --cpus-per-task=16 bash -c exec distcorpus worker"
    wait_until(lambda: asked in (tmp_path / "srun").read_text(), "the workers")
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 143
    assert (tmp_path / "program").read_text() == "train.py --fast\n"
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    assert not list(tmp_path.glob("distcorpus-17-*"))  # with the keys


def test_the_batch_job_does_not_wait_for_a_head_that_has_ended(batch, tmp_path):
    process = batch("exit 3")
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "the head has ended" in errors
    assert not (tmp_path / "program").exists()
