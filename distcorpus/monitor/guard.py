"""Who may look at the dashboard: what stands between a browser and its pages."""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

#: What every answer says: run our own scripts, style and pictures, talk to nobody else, be framed by nobody.
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}
#: Fields of an address.
MOST_FIELDS = 20
# A path that every browser reads as one of this host: some take a backslash for a slash, and skip tabs.
_PLAIN_PATH = re.compile(r"/([\w.~-]+/?)*", re.ASCII)


class Guard:
    """Lets through who may look, and adds `HEADERS` to all answers.

    A request has to be a GET or HEAD. Its ``Host`` has to be a name of this machine or an address, for a page
    of somebody else whose name leads here (DNS rebinding) has that name there; its ``Origin``, where a
    browser gives one, has to be the same. Where there is a token, a request shows it: in its address, once,
    then in a cookie, or as ``Authorization: Bearer``.

    Parameters
    ----------
    app : ASGI application
    hosts : iterable of str
        Names of this machine, beside ``localhost`` and addresses.
    token : str or None
    port : int
        For the cookie's name: cookies are for all ports of a host.
    secure : bool
        Whether it is served over TLS.
    """

    def __init__(
        self, app: App, *, hosts: Iterable[str] = (), token: str | None = None, port: int, secure: bool
    ) -> None:
        self._app = app
        self._hosts = {"localhost", *(host.lower().rstrip(".") for host in hosts)}
        self._token = token
        self._cookie = f"distcorpus-{port}"
        self._secure = secure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                extra = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", ()), *extra]
            await send(message)

        if scope["type"] != "http":
            return  # a websocket is closed that way
        headers = _headers(scope)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _answer(send_guarded, *refusal)
            return
        try:
            shown = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=MOST_FIELDS)
        except ValueError:
            await _answer(send_guarded, 400, f"The address has more than {MOST_FIELDS} fields")
            return
        token = shown.get("token", [""])[0]
        if self._token is not None and token and self._is_token(token):
            await self._remember(scope, send_guarded)
        elif self._token is None or self._is_token(self._token_in(headers)):
            await self._app(scope, receive, send_guarded)
        else:
            await _answer(
                send_guarded,
                401,
                "This dashboard asks for a token: open the address that 'distcorpus dashboard' printed, "
                "which ends in ?token=...",
                (("www-authenticate", "Bearer"),),
            )

    def _refusal(self, scope: Scope, headers: dict[str, list[str]]) -> tuple[int, str] | None:
        if scope["method"] not in ("GET", "HEAD"):
            return 405, "This is for looking only: GET and HEAD"
        host = headers.get("host", [])
        if len(host) != 1 or not self._is_here(host[0]):
            return 421, (
                "This machine has another name than the one in the request. If it is one of its names, start "
                "'distcorpus dashboard' with --name NAME"
            )
        own = f"{'https' if self._secure else 'http'}://{host[0]}".lower()
        if any(origin.lower() != own for origin in headers.get("origin", [])):
            return 403, "A page of another origin asks for this"
        return None

    def _is_here(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name.rstrip(".") in self._hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _is_token(self, shown: str) -> bool:
        return self._token is not None and hmac.compare_digest(shown.encode(), self._token.encode())

    def _token_in(self, headers: dict[str, list[str]]) -> str:
        for value in headers.get("authorization", []):
            scheme, _, shown = value.partition(" ")
            if scheme.lower() == "bearer":
                return shown.strip()
        cookies: SimpleCookie = SimpleCookie()
        try:
            cookies.load("; ".join(headers.get("cookie", [])))
        except CookieError:
            return ""
        return cookies[self._cookie].value if self._cookie in cookies else ""

    async def _remember(self, scope: Scope, send: Send) -> None:
        """Put the token into a cookie and out of the address."""
        assert self._token is not None
        cookie = f"{self._cookie}={self._token}; Path=/; HttpOnly; SameSite=Lax" + "; Secure" * self._secure
        path = "/" + scope["path"].lstrip("/")
        where = path if _PLAIN_PATH.fullmatch(path) else "/"
        await _answer(send, 303, "", (("location", where), ("set-cookie", cookie)))


def new_token() -> str:
    """Return a token that nobody guesses."""
    return secrets.token_urlsafe(32)


def _headers(scope: Scope) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return found


async def _answer(send: Send, status: int, text: str, headers: Iterable[tuple[str, str]] = ()) -> None:
    body = f"{text}.\n".encode() if text else b""
    fields = [("content-type", "text/plain; charset=utf-8"), ("content-length", str(len(body))), *headers]
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields],
        }
    )
    await send({"type": "http.response.body", "body": body})
