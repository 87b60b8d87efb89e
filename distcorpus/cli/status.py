"""``distcorpus status``: one look at a cluster, or one after the other."""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from distcorpus.cli.common import (
    Commands,
    find_options,
    positive,
    require_dispatcher,
    secure_options,
    use_credentials,
    verbose_options,
)
from distcorpus.monitor import text
from distcorpus.monitor.snapshot import SessionView, Snapshot, WorkerView, as_json, from_message
from distcorpus.wire import CommunicationError, NamingError, close

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

#: Workers and training runs on the screen; of more, those that need a look.
MOST_SHOWN = 40
#: Incidents on the screen, and for how long.
INCIDENTS_SHOWN, INCIDENTS_FOR = 5, 600.0
#: Characters of a line that is long enough for anything.
UNLIMITED = 100_000
_COLOURS = {"ready": "green", "silent": "yellow", "leaving": "cyan", "connecting": "cyan"}


def add(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "status", parents=[verbose_options(), secure_options(), find_options()], help="show a running cluster"
    )
    parser.add_argument(
        "--watch",
        type=positive,
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
    use_credentials(options)
    if options.watch is None:
        snapshot = look(require_dispatcher(options))
        if options.json:
            print(as_json(snapshot, indent=2))
        else:
            console = _console()
            console.print(screen(snapshot, console.width))
    elif options.json:
        for found in _looks(options, since_the_last=True):
            print(json.dumps({"problem": found}) if isinstance(found, str) else as_json(found), flush=True)
    else:
        _watch(options)


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


def _looks(options: argparse.Namespace, *, since_the_last: bool = False) -> Iterator[Snapshot | str]:
    """Look again and again; yield what is wrong instead, where there is no dispatcher any more.

    Parameters
    ----------
    options : argparse.Namespace
    since_the_last : bool
        Whether each look has only the events since the one before.
    """
    dispatcher = require_dispatcher(options)
    cursor = None
    while True:
        try:
            if dispatcher is None:
                dispatcher, cursor = require_dispatcher(options), None
            snapshot = look(dispatcher, cursor)
            cursor = snapshot.cursor if since_the_last else None
            yield snapshot
        except (CommunicationError, NamingError, RuntimeError) as error:
            if dispatcher is not None:
                close(dispatcher)
                dispatcher = None
            yield str(error)
        time.sleep(options.watch)


def _watch(options: argparse.Namespace) -> None:
    from rich.live import Live
    from rich.text import Text

    console = _console()
    with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
        for found in _looks(options):
            shown = Text(found, "red") if isinstance(found, str) else screen(found, console.width)
            live.update(shown, refresh=True)


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
        parts += [Text(), *_sessions(snapshot, width)]
    else:
        parts += [Text("models in training or open: none")]
    parts += [Text(), _workers(snapshot, width), *_remarks(snapshot)]
    return Group(*parts)


def _sessions(snapshot: Snapshot, width: int) -> list[RenderableType]:
    """Return the sessions as a table, or, where that is too wide, with some lines each."""
    from rich.text import Text

    mixed = len({worker.kernels for worker in snapshot.workers if worker.kernels}) > 1
    title = _title(len(snapshot.sessions), "model in training or open")
    more = len(snapshot.sessions) - MOST_SHOWN
    caption = f"and {more:,} more: see --json" if more > 0 else None
    shown = snapshot.sessions[:MOST_SHOWN]
    table = _session_table(shown, title, mixed)
    table.caption = caption
    if _fits(table, width):
        return [table]
    lines: list[RenderableType] = [Text(title, "italic")]
    for session in shown:
        lines += _session_lines(session, mixed)
    return lines + ([Text(caption, "dim italic")] if caption else [])


def _session_table(sessions: Sequence[SessionView], title: str, mixed: bool) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("training run", "model", "of"):
        table.add_column(column, overflow="fold", no_wrap=column == "training run")
    table.add_column("progress", min_width=16)
    for column in ("docs/s", "left", "queued"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("stands at", overflow="fold")
    for session in sessions:
        table.add_row(
            Text(_session_name(session, mixed)),
            Text(text.model(session)),
            Text(text.owner(session)),
            _bar(session),
            text.count(session.rate) if session.rate else "-",
            text.duration(session.seconds_left),
            _queued(session),
            _stage(session),
        )
    return table


def _session_lines(session: SessionView, mixed: bool) -> list[RenderableType]:
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    head = Text(_session_name(session, mixed), "bold")
    head.append(f"  {text.model(session)}, of {text.owner(session)}", "not bold")
    figures = [f"{text.count(session.rate)} docs/s"] if session.rate else []
    figures += [f"{text.duration(session.seconds_left)} left"] if session.seconds_left is not None else []
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_row(_bar(session), ", ".join([*figures, f"{_queued(session)} queued"]))
    return [head, *(Padding(line, (0, 0, 0, 2)) for line in (grid, _stage(session)))]


def _session_name(session: SessionView, mixed: bool) -> str:
    return session.name + (f" (with {session.kernels})" if mixed else "")


def _queued(session: SessionView) -> str:
    return f"{session.chunks_queued}/{session.max_queued or '∞'}"


def _stage(session: SessionView) -> Text:
    from rich.text import Text

    return Text(text.stage(session), "yellow" if session.waits_for == "no worker" else "")


def _bar(session: SessionView) -> RenderableType:
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    if session.progress is None:
        return "-"
    bar = Table.grid(padding=(0, 1))
    bar.add_row(ProgressBar(1.0, session.progress, width=10), text.share(session.progress))
    return bar


def _fits(table: Table, width: int) -> bool:
    """Return whether a table's cells are each on one line in so many columns of characters."""
    from rich.console import Console

    return Console(width=UNLIMITED).measure(table).maximum <= width


def _workers(snapshot: Snapshot, width: int) -> RenderableType:
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
    columns = [name for name in _WORKER_COLUMNS if mixed or name != "kernels"]
    table = _worker_table(ordered[:MOST_SHOWN], title, columns)
    for name in _LEFT_OUT_FIRST:
        if not _fits(table, width):
            columns.remove(name)
            table = _worker_table(ordered[:MOST_SHOWN], title, columns)
    if len(usable) > MOST_SHOWN:
        table.caption = f"and {len(usable) - MOST_SHOWN:,} more: see --json"
    return table


def _worker_table(workers: Sequence[WorkerView], title: str, columns: Sequence[str]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in columns:
        # A name that fits into no line is folded: it is what people look for.
        table.add_column(name, justify=_WORKER_COLUMNS[name][0], no_wrap=name != "worker", overflow="fold")
    for worker in workers:
        colours = {"state": _COLOURS.get(worker.state, "red")}
        table.add_row(*(Text(_WORKER_COLUMNS[name][1](worker), colours.get(name, "")) for name in columns))
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
#: What is left out, one after the other, where the table is too wide.
_LEFT_OUT_FIRST = ("idle", "transfer", "cache", "ping", "host", "pid", "memory", "job")


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
