"""What a browser may ask of the page's server: a list of what the page needs, and no more.

Gradio has routes that serve and take files, call functions by name and fetch other servers' files.
The page uses none of them: pictures come and go within its messages.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_PAGES = {"/", "/config", "/theme.css", "/favicon.ico"}
_FOLDERS = ("/assets/", "/static/", "/svelte/", "/gradio_api/queue/", "/gradio_api/heartbeat/")
_CALLS = {"/gradio_api/startup-events", "/gradio_api/reset", "/gradio_api/cancel"}
_LOCAL = {"127.0.0.1", "localhost", "[::1]"}
_AROUND = 64 * 1024  # bytes of a message, beside a file
# what a browser may load, whatever a page or its libraries ask for: nothing from elsewhere
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "frame-ancestors 'none'; form-action 'self'; base-uri 'self'"
)
_HEADERS = {
    b"content-security-policy": _POLICY.encode(),
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
}


class Guard:
    """ASGI middleware that refuses other paths, other hosts' names, and messages that are too long.

    Args:
        app: what it stands before.
        most: bytes of a file that may be uploaded.
        local: whether only this machine's own names are served, so that no other site's name can
            be made to lead here (DNS rebinding).
    """

    def __init__(self, app: App, most: int, local: bool) -> None:
        self.app, self.local = app, local
        self.longest = most * 4 // 3 + _AROUND  # in base64

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if refusal := self.refuse(scope):
            await _answer(send, *refusal)
            return

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                kept = [pair for pair in message["headers"] if pair[0].lower() not in _HEADERS]
                message["headers"] = [*kept, *_HEADERS.items()]
            await send(message)

        await self.app(scope, receive, send_with_headers)

    def refuse(self, scope: Scope) -> tuple[int, str] | None:
        """The status and message of a refusal; None if the request is served."""
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        path = scope["path"]
        known = path in _PAGES | _CALLS or (path.startswith(_FOLDERS) and ".." not in path)
        if scope["type"] != "http" or not known:
            return 404, "There is nothing here."
        if self.local and headers.get(b"host", "").rsplit(":", 1)[0] not in _LOCAL:
            return 421, "This server answers to 127.0.0.1 and localhost."
        if scope["method"] in ("GET", "HEAD"):
            return None
        length = headers.get(b"content-length", "")
        if not length.isdecimal():
            return 411, "The request does not say its length."
        if int(length) > self.longest:
            return 413, "The file is too large."
        return None


async def _answer(send: Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *_HEADERS.items()]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
