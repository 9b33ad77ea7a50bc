"""Draw what agents do: from where each one gathers, and which of them serve a pixel.

    python tools/visualize_attention.py CONFIG CHECKPOINT photo.jpg --stage 3 --pixel 320 240
    python tools/visualize_attention.py CONFIG none photo.jpg --stage 2 --agents 12 --out stage2.png

The picture shows the pixel and the agents' cells, how much each agent serves the pixel, what
reaches it through them, and for the agents that serve it most from where they gather. Bright is the
largest weight of a panel. CHECKPOINT 'none' draws random weights.
"""

from mmengine_agent.agent_picture import write_picture
from mmengine_agent.run.setup import add_config_flags, make_parser


def main() -> None:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("config", help="config file, for example configs/agent_pvt_maskrcnn.py")
    add("checkpoint", help="checkpoint file, or none for random weights")
    add("image", help="image file")
    stage = "from 1 (%(default)s); of AgentViT, a block"
    add("--stage", type=int, default=3, help=stage)
    block = "of the stage's agent blocks; -1, the last, is default"
    add("--block", type=int, default=-1, help=block)
    pixel = "of the image; default: its centre"
    add("--pixel", type=int, nargs=2, metavar=("X", "Y"), help=pixel)
    add("--head", type=int, help="one head, from 0; default: the mean of all")
    drawn = "agents drawn (%(default)s)"
    add("--agents", dest="drawn_agents", type=int, default=8, metavar="N", help=drawn)
    add("--out", default="attention.png", metavar="FILE", help="%(default)s")
    add("--device", default="cpu", help="%(default)s")
    add_config_flags(parser, agents=False)
    write_picture(parser.parse_args())
