"""Show a model on a page in the browser: predictions, and what agents do.

    python tools/page.py CONFIG work_dirs/NAME/epoch_12.pth
    python tools/page.py CONFIG CHECKPOINT CONFIG2 CHECKPOINT2 --images photos --port 8080

Pictures are dropped on the page, or picked from a folder. A click on a pixel shows which agents
serve it and from where they gather. Two models see the same pictures, side by side. Large pictures
go through in tiles. CHECKPOINT 'none' stands for random weights.

The page is for this machine alone, unless --host names another address: it asks nobody who they
are. It fetches nothing from elsewhere, and needs `pip install 'agent-attention[page]'`.
"""

from argparse import ArgumentTypeError, Namespace
from importlib import import_module

from mmengine_agent.errors import UserError
from mmengine_agent.predict.memory import read_size
from mmengine_agent.run.setup import make_parser


def main() -> None:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("config", help="config file, best the one training wrote to its work dir")
    add("checkpoint", help="checkpoint file, or none for random weights")
    add("second", nargs="*", metavar="CONFIG2 CHECKPOINT2", help="another model to compare with")
    add("--images", metavar="DIR", help="a folder of images to pick from")
    add("--device", default="auto", help="cpu, cuda, cuda:1; default: a GPU if any")
    add("--tile", type=int, default=1024, metavar="SIZE", help="of large pictures; %(default)s")
    add("--host", default="127.0.0.1", help="address to listen at; %(default)s")
    add("--port", type=read_port, default=7860, help="%(default)s")
    most = "largest file that may be uploaded; 64MB"
    add("--max-upload", type=read_size, default=64 * 10**6, metavar="SIZE", help=most)
    args = parser.parse_args()
    if len(args.second) not in (0, 2):
        parser.error("a second model takes both CONFIG2 and CHECKPOINT2")
    if args.tile < 64:
        parser.error(f"--tile must be at least 64 pixels, got {args.tile}")
    serve(args)


def read_port(text: str) -> int:
    """A port, a type of flags."""
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise ArgumentTypeError(f"{text!r} is no port from 1 to 65535")
    return int(text)


def serve(flags: Namespace) -> None:
    """Load what the page shows, and serve it until it is stopped.

    Raises:
        UserError: if Gradio is not installed, a model cannot be loaded, or the port is taken.
    """
    try:
        server = import_module("agent_toolkit.page.server")
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] not in ("gradio", "starlette"):
            raise
        raise UserError("the page needs gradio: pip install 'agent-attention[page]'") from error
    server.serve(flags)
