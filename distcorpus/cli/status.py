"""``distcorpus status``: one look at a cluster, or one after the other."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from distcorpus.cli.common import (
    Commands,
    find_options,
    require_dispatcher,
    secure_options,
    use_credentials,
    verbose_options,
)
from distcorpus.monitor import text
from distcorpus.monitor.snapshot import Snapshot, WorkerView, as_json, from_message
from distcorpus.wire import CommunicationError, NamingError

if TYPE_CHECKING:
    from rich.console import RenderableType

#: Workers and sessions on the screen; of more, those that need a look.
MOST_SHOWN = 40
#: Incidents on the screen, and for how long.
INCIDENTS_SHOWN, INCIDENTS_FOR = 5, 600.0
#: Characters of a line from which on more is shown of each worker.
WIDE = 120
_COLOURS = {"ready": "green", "silent": "yellow", "leaving": "cyan", "connecting": "cyan"}


def add(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "status", parents=[verbose_options(), secure_options(), find_options()], help="show a running cluster"
    )
    parser.add_argument(
        "--watch",
        type=float,
        nargs="?",
        const=1.0,
        metavar="SECONDS",
        help="refresh every so many seconds, until Ctrl-C (default: 1)",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print JSON, for programs; with --watch, one line each time",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print who works, for whom, and how far it is."""
    if options.watch is not None and not options.watch > 0:
        raise ValueError("--watch takes a number of seconds above 0")
    use_credentials(options)
    dispatcher = require_dispatcher(options)
    if options.watch is None:
        snapshot = look(dispatcher)
        if options.json:
            print(as_json(snapshot, indent=2))
        else:
            console = _console()
            console.print(screen(snapshot, console.width))
    elif options.json:
        cursor = None
        while True:
            snapshot = look(dispatcher, cursor)
            cursor = snapshot.cursor
            print(as_json(snapshot), flush=True)
            time.sleep(options.watch)
    else:
        _watch(options, dispatcher)


def look(dispatcher: Any, cursor: int | None = None) -> Snapshot:
    """Ask a dispatcher what there is to see.

    Raises
    ------
    RuntimeError
        It is of another version, and does not tell, or not so that it can be read.
    """
    try:
        return from_message(Snapshot, dispatcher.snapshot(cursor))
    except (AttributeError, ValueError) as error:
        raise RuntimeError(f"the dispatcher is of another version of distcorpus: {error}") from None


def _watch(options: argparse.Namespace, dispatcher: Any) -> None:
    from rich.live import Live

    console = _console()
    with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
        while True:
            try:
                live.update(screen(look(dispatcher), console.width), refresh=True)
            except (CommunicationError, NamingError) as error:
                live.update(f"the dispatcher does not answer: {error}", refresh=True)
                try:
                    dispatcher = require_dispatcher(options)
                except (CommunicationError, NamingError, RuntimeError) as again:
                    live.update(f"there is no dispatcher: {again}", refresh=True)
            time.sleep(options.watch)


def _console() -> Any:
    from rich.console import Console

    return Console(highlight=False)


def screen(snapshot: Snapshot, width: int) -> RenderableType:
    """Return what is shown of a cluster, in so many columns of characters."""
    from rich.console import Group
    from rich.text import Text

    up = text.duration(snapshot.time - snapshot.began)
    title = Text(f"dispatcher {snapshot.version} on {snapshot.host}, pid {snapshot.pid}, up {up}", "bold")
    title.append(
        f"  {snapshot.location}{', TLS' if snapshot.tls else ''}"
        f", memory {text.size(snapshot.bytes_resident)} of {text.size(snapshot.bytes_machine)}",
        "not bold",
    )
    parts: list[RenderableType] = [title]
    if snapshot.sessions:
        parts += [Text(), _sessions(snapshot)]
    else:
        parts += [Text("models in training or open: none")]
    parts += [Text(), _workers(snapshot, width >= WIDE), *_remarks(snapshot)]
    return Group(*parts)


def _sessions(snapshot: Snapshot) -> RenderableType:
    from rich import box
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    mixed = len({worker.kernels for worker in snapshot.workers if worker.kernels}) > 1
    title = _title(len(snapshot.sessions), "model in training or open")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("session", "model", "of"):
        table.add_column(column, overflow="fold", no_wrap=column == "session")
    table.add_column("progress", min_width=16)
    for column in ("docs/s", "left", "queued"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("stands at", overflow="fold")
    for session in snapshot.sessions[:MOST_SHOWN]:
        bar: Any = Text("-")
        if session.progress is not None:
            bar = Table.grid(padding=(0, 1))
            bar.add_row(ProgressBar(1.0, session.progress, width=10), text.share(session.progress))
        name = session.name + (f" (with {session.kernels})" if mixed else "")
        queued = f"{session.chunks_queued}/{session.max_queued or '∞'}"
        table.add_row(
            Text(name),
            Text(text.model(session)),
            Text(text.owner(session)),
            bar,
            text.count(session.rate) if session.rate else "-",
            text.duration(session.seconds_left),
            queued,
            Text(text.stage(session), "yellow" if session.waits_for == "no worker" else ""),
        )
    if len(snapshot.sessions) > MOST_SHOWN:
        table.caption = f"and {len(snapshot.sessions) - MOST_SHOWN:,} more: see --json"
    return table


def _workers(snapshot: Snapshot, wide: bool) -> RenderableType:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    usable = [worker for worker in snapshot.workers if worker.threads is not None]
    # Those that need a look come first where not all fit.
    ordered = sorted(usable, key=lambda one: (len(usable) > MOST_SHOWN and one.state == "ready", one.name))
    states = Counter(worker.state for worker in snapshot.workers)
    threads = sum(worker.threads or 0 for worker in usable)
    counted = ", ".join(f"{state}: {number:,}" for state, number in sorted(states.items()))
    title = _title(len(usable), "worker") + (
        f", {text.plural(threads, 'thread')} ({counted})" if counted else ""
    )
    mixed = len({worker.kernels for worker in usable}) > 1
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name, (column, _) in _WORKER_COLUMNS.items():
        if (wide or name not in _WIDE) and (mixed or name != "kernels"):
            table.add_column(name, justify=column, no_wrap=name in ("worker", "state"), overflow="fold")
    shown = [str(column.header) for column in table.columns]
    for worker in ordered[:MOST_SHOWN]:
        cells = {name: show(worker) for name, (_, show) in _WORKER_COLUMNS.items()}
        colours = {"state": _COLOURS.get(worker.state, "red")}
        table.add_row(*(Text(cells[name], colours.get(name, "")) for name in shown))
    if len(usable) > MOST_SHOWN:
        table.caption = f"and {len(usable) - MOST_SHOWN:,} more: see --json"
    return table


def _jobs(worker: WorkerView) -> str:
    counts = {"lost": worker.jobs_lost, "failed": worker.jobs_failed, "for nothing": worker.jobs_discarded}
    return "; ".join(
        [text.count(worker.jobs), *(f"{number} {what}" for what, number in counts.items() if number)]
    )


#: What is shown of a worker, and on which side of its column.
_WORKER_COLUMNS: dict[str, tuple[Literal["left", "right"], Callable[[WorkerView], str]]] = {
    "worker": ("left", lambda worker: worker.name),
    "host": ("left", lambda worker: worker.host),
    "pid": ("right", lambda worker: str(worker.pid)),
    "threads": ("right", lambda worker: str(worker.threads)),
    "state": ("left", lambda worker: worker.state),
    "busy": ("right", lambda worker: text.share(worker.busy)),
    "transfer": ("right", lambda worker: text.share(worker.transfer)),
    "idle": ("right", lambda worker: text.share(worker.idle)),
    "memory": ("right", lambda worker: text.size(worker.bytes_resident)),
    "cache": ("right", lambda worker: text.size(worker.bytes_cached)),
    "ping": ("right", lambda worker: text.duration(worker.ping_seconds)),
    "jobs": ("left", _jobs),
    "job": (
        "left",
        lambda worker: f"{worker.job}, {text.duration(worker.job_seconds)}" if worker.job else "-",
    ),
    "kernels": ("left", lambda worker: worker.kernels or "-"),
}
#: For wide terminals.
_WIDE = {"transfer", "idle", "cache", "ping"}


def _remarks(snapshot: Snapshot) -> list[RenderableType]:
    from rich.text import Text

    remarks: list[RenderableType] = []
    unusable = [worker for worker in snapshot.workers if worker.threads is None]
    for worker in unusable[:MOST_SHOWN]:
        if worker.state == "stock":
            said = f"{worker.name} is {worker.reason}"
        elif worker.state == "connecting":
            said = f"worker {worker.name} is being connected to, at {worker.uri}"
        else:
            said = f"worker {worker.name} cannot be used: {worker.reason} ({worker.state}, {worker.uri})"
        remarks.append(Text(said, "cyan" if worker.state == "connecting" else "red"))
    if len(unusable) > MOST_SHOWN:
        remarks.append(
            Text(f"and {len(unusable) - MOST_SHOWN:,} more that cannot be used: see --json", "red")
        )
    if not any(worker.state == "ready" for worker in snapshot.workers):
        remarks.append(Text("no worker is ready: start 'distcorpus worker' on any host", "yellow"))
    if snapshot.may_differ:
        found = "; ".join(snapshot.may_differ[:5]) + ("; ..." if len(snapshot.may_differ) > 5 else "")
        remarks.append(Text(f"builds differ, so results may differ in their last bits: {found}", "yellow"))
    if len({worker.kernels for worker in snapshot.workers if worker.kernels}) > 1:
        said = "workers have different kernels, which could give different bits: "
        remarks.append(Text(f"{said}each training run uses those of one kind", "yellow"))
    lately = [
        incident
        for incident in snapshot.incidents
        if incident.severity != "info" and snapshot.time - incident.time < INCIDENTS_FOR
    ]
    for incident in lately[-INCIDENTS_SHOWN:]:
        who = " ".join(filter(None, (incident.worker, incident.session)))
        ago = text.duration(max(snapshot.time - incident.time, 0.0))
        said = f"{ago} ago: {incident.kind} {who}: {incident.text.splitlines()[0] if incident.text else ''}"
        remarks.append(Text(said, "red" if incident.severity == "error" else "yellow"))
    return remarks


def _title(number: int, what: str) -> str:
    first, _, rest = what.partition(" ")
    return f"{text.plural(number, first)}{' ' if rest else ''}{rest}"
