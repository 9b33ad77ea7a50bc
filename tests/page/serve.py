"""The page's server as users start it, with a record of what it sends and whom it calls.

    python tests/page/serve.py RECORD CONFIG CHECKPOINT [FLAGS]

RECORD gets a line for each connection to another machine, and every text that goes to a browser.
"""

import signal
import sys
from pathlib import Path
from typing import Any

from agent_toolkit.commands.demo import main
from agent_toolkit.page import guard
from mmengine_agent.run.exit import run_tool

_LOCAL = {"127.0.0.1", "localhost", "::1", "0.0.0.0", None, ""}
RECORD = Path(sys.argv.pop(1))


def note(line: bytes) -> None:
    with RECORD.open("ab") as file:
        file.write(line + b"\n")


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: a name that is looked up, or an address that is called."""
    if event == "socket.getaddrinfo" and arguments[0] not in _LOCAL:
        note(f"CALLED {arguments[0]}".encode())
    address = arguments[1] if event == "socket.connect" else ()
    if isinstance(address, tuple) and address and address[0] not in _LOCAL:
        note(f"CALLED {address}".encode())


def record(asked: Any) -> Any:
    """Note what goes to browsers, but for Gradio's own files."""

    async def recorded(self: guard.Guard, scope: Any, receive: Any, send: Any) -> None:
        own = scope.get("path", "").startswith(("/assets/", "/static/", "/svelte/"))

        async def sending(message: Any) -> None:
            if not own and message.get("body"):
                note(b"SENT " + message["body"])
            await send(message)

        await asked(self, scope, receive, sending)

    return recorded


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` has it ignored
    sys.addaudithook(watch)
    guard.Guard.__call__ = record(guard.Guard.__call__)  # type: ignore[method-assign]
    run_tool(main)
