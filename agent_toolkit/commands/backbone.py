"""Write a config that is another one with one of our backbones.

    python tools/with_backbone.py mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py agent_pvt_t \\
        --out rtmdet_tiny_agent-pvt-t.py

The file inherits from the config and says what differs, as `--backbone` of the other tools makes
it: backbone, channels of neck and heads, normalisation of images, optimizer. OpenMMLab's own tools
take it too.
"""

from pathlib import Path

from mmengine_agent.backbone_flags import BackboneFlags
from mmengine_agent.config_changes import write_inheriting
from mmengine_agent.errors import UserError
from mmengine_agent.run.setup import make_parser, read_config


def main() -> None:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("config", help="config file, or such as mmdet::atss/atss_r50_fpn_1x_coco.py")
    add("backbone", metavar="NAME", help="agent_pvt_t, agent_swin_b, flatten_pvtv2_b0, ...")
    add("--out", required=True, type=Path, metavar="FILE.py", help="the new config")
    BackboneFlags.add_weights_to(parser)
    BackboneFlags.add_agents_to(parser)
    args = parser.parse_args()
    if args.out.suffix != ".py":
        raise UserError(f"--out: name a .py file, got {args.out}")
    flags = BackboneFlags.of(args)
    new = read_config(args.config, backbone=flags)
    head = f"{args.config}\nwith {flags.name}, written by tools/with_backbone.py."
    write_inheriting(args.out, args.config, new, head)
    print(f"wrote {args.out}")
