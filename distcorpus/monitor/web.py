"""The dashboard's server: pages that only look, at what a `Poller` has seen."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from distcorpus.monitor.guard import App, Guard
from distcorpus.monitor.poller import Poller

STATIC = Path(__file__).parent / "static"
#: Browsers, and whoever else has a connection.
MOST_STREAMS, MOST_CONNECTIONS = 100, 250
#: Seconds after which a stream that has nothing to say says that it is there.
STREAM_SILENCE = 10.0


class Dashboard:
    """Serves the dashboard of a cluster, in a thread of its own, until it is closed.

    Parameters
    ----------
    poller : Poller
        What it shows; it is closed with this.
    bind : (str, int)
        Address and port to listen on; port 0 for any.
    token : str, optional
        What who looks has to show.
    hosts : iterable of str
        Names of this machine, by which browsers may call it, see `guard.Guard`.
    certificate : (str, str), optional
        Files of a certificate with its chain, and of its key, to serve over TLS.
    words : sequence of str, optional
        The words of term ids, for sessions with so many terms.

    Raises
    ------
    OSError
        If the address cannot be listened on, or the certificate not be read.
    """

    def __init__(
        self,
        poller: Poller,
        bind: tuple[str, int],
        *,
        token: str | None = None,
        hosts: Iterable[str] = (),
        certificate: tuple[str, str] | None = None,
        words: list[str] | None = None,
    ) -> None:
        family = socket.AF_INET6 if ":" in bind[0] else socket.AF_INET
        try:
            listening = socket.create_server(bind, family=family, backlog=128)
        except OSError as error:
            raise OSError(f"cannot listen on {bind[0]}:{bind[1]}: {error}") from error
        port = listening.getsockname()[1]
        host = f"[{bind[0]}]" if ":" in bind[0] else bind[0]
        self.address = f"http{'s' if certificate else ''}://{host}:{port}/"
        self._poller = poller
        app = Guard(
            application(poller, words),
            hosts=hosts,
            token=token,
            port=port,
            secure=certificate is not None,
        )
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            ws="none",
            http="h11",
            loop="asyncio",
            limit_concurrency=MOST_CONNECTIONS,
            timeout_keep_alive=10,
            timeout_graceful_shutdown=1,
            ssl_certfile=certificate[0] if certificate else None,
            ssl_keyfile=certificate[1] if certificate else None,
        )
        config.load()
        self._server = uvicorn.Server(config)
        self._listening = listening
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listening]}, name="dashboard", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Close all connections and end."""
        self._poller.close()  # and with it the streams
        self._server.should_exit = True
        self._thread.join()
        self._listening.close()


def application(poller: Poller, words: list[str] | None = None) -> App:
    """Return the ASGI application: the page, its stream, a session's details, metrics, and that it lives."""
    streams = 0

    async def page(request: Request) -> Response:
        return FileResponse(STATIC / "index.html")

    async def events(request: Request) -> Response:
        nonlocal streams
        if request.method == "HEAD":  # which has no body to wait for
            return Response(media_type="text/event-stream")
        if streams >= MOST_STREAMS:
            return PlainTextResponse(f"{MOST_STREAMS} pages look already.\n", 503, {"retry-after": "10"})

        async def stream() -> AsyncIterator[str]:
            nonlocal streams
            streams += 1
            try:
                async for text in _stream(poller):
                    yield text
            finally:
                streams -= 1

        return StreamingResponse(stream(), media_type="text/event-stream")

    async def details(request: Request) -> Response:
        name = request.query_params.get("session", "")
        found = poller.watch(name)
        latest = poller.latest
        terms = {view.name: view.terms for view in latest.sessions} if latest else {}
        if found is not None and words is not None and terms.get(name) == len(words):
            found = {**found, "topics": [_in_words(topic, words) for topic in found["topics"]]}
        return JSONResponse(found)

    async def health(request: Request) -> Response:
        latest = poller.latest
        return PlainTextResponse("", 503) if latest is None else PlainTextResponse("ok\n")

    def metrics(request: Request) -> Response:  # in a thread: a large cluster has many
        try:
            from distcorpus.monitor.metrics import CONTENT_TYPE, as_text

            return Response(as_text(poller.latest), media_type=CONTENT_TYPE)
        except ImportError:
            return PlainTextResponse("no prometheus-client: pip install 'distcorpus[metrics]'\n", 501)

    routes: list[Any] = [
        Route("/", page),
        Route("/events", events),
        Route("/details", details),
        Route("/health", health),
        Route("/metrics", metrics),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    return Starlette(routes=routes)


async def _stream(poller: Poller) -> AsyncIterator[str]:
    """Yield what a page is told, as server-sent events."""
    loop, changed = asyncio.get_running_loop(), asyncio.Event()

    def tell() -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(changed.set)

    stop = poller.listen(tell)
    try:
        number: int | None = None
        yield "retry: 2000\n\n"
        while not poller.ended:
            changed.clear()
            texts, number = poller.messages(number)
            for text in texts:
                yield f"data: {text}\n\n"
            try:
                await asyncio.wait_for(changed.wait(), STREAM_SILENCE)
            except asyncio.TimeoutError:
                yield ": still here\n\n"
    finally:
        stop()


def _in_words(topic: dict[str, Any], words: list[str]) -> dict[str, Any]:
    if topic["words"]:
        return topic
    return {**topic, "words": [words[term] if 0 <= term < len(words) else "" for term in topic["terms"]]}
