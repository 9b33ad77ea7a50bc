"""The page's server: what is loaded, and how Gradio is kept to what the page needs."""

import ipaddress
import os
import signal
import socket
import sys
import threading
from argparse import Namespace

from starlette.middleware import Middleware

from agent_toolkit.page.guard import Guard
from agent_toolkit.page.models import PageModel
from agent_toolkit.page.pictures import Gallery
from agent_toolkit.page.service import Service
from mmengine_agent.errors import UserError

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported, too
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

from agent_toolkit.page import layout

_SESSIONS = 20  # users whose pictures are kept in memory; of more, the oldest is forgotten


def serve(flags: Namespace) -> None:
    """Serve the page until it is stopped.

    Raises:
        UserError: if a model or the folder of images cannot be read, or the port is taken.
    """
    require_free(flags.host, flags.port)
    pairs = [(flags.config, flags.checkpoint), *([tuple(flags.second)] if flags.second else [])]
    gallery = Gallery(flags.images)
    models = [PageModel(config, weights, flags.device, flags.tile) for config, weights in pairs]
    page = layout.build(Service(models, gallery, flags.max_upload))
    guard = Middleware(Guard, most=flags.max_upload, local=_is_local(flags.host))
    page.launch(
        server_name=flags.host,
        server_port=flags.port,
        app_kwargs={"middleware": [guard]},
        theme=layout.theme(),
        css=layout.STYLE,
        allowed_paths=[],
        max_file_size=1,  # no route takes files
        state_session_capacity=_SESSIONS,
        share=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        run_history=False,
        enable_monitoring=False,
        footer_links=[],
        quiet=True,
        prevent_thread_lock=True,
    )
    print(f"open http://{flags.host}:{flags.port} in a browser; Ctrl-C ends it", flush=True)
    if not _is_local(flags.host):
        warning = f"warning: whoever reaches {flags.host} may use the page: it asks for no password"
        print(warning, file=sys.stderr, flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        print("stopped by Ctrl-C", file=sys.stderr, flush=True)
        # at once: while another thread predicts, the interpreter's own end is an abort
        os._exit(128 + signal.SIGINT)


def require_free(host: str, port: int) -> None:
    """Raise UserError if nothing can listen at an address, before models are loaded for it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"--host {host} --port {port}: cannot listen there: {reason}; give others"
        ) from error


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
