"""Convert a published checkpoint to one that any OpenMMLab tool loads, and say what is in it.

    python tools/convert_checkpoint.py agent_pvt_t_imagenet.pth checkpoints/agent_pvt_t.pth
    python tools/convert_checkpoint.py https://host/maskrcnn.pth checkpoints/maskrcnn.pth

Takes ImageNet classifiers, whole detectors and segmentors of mmdet 2 and mmseg 0, mmengine files
and .safetensors, and runs nothing that is in them. A classifier becomes the bare weights of its
backbone, a detector or segmentor keeps all its weights. OUT ends in .pth or .safetensors.
"""

from pathlib import Path
from typing import Any

import torch
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor

from agent_attention.weights.fit import backbone_weights, unwrap
from agent_attention.weights.recognise import build_like, looks_like
from mmengine_agent.checkpoints import install_safe_loader
from mmengine_agent.errors import UserError
from mmengine_agent.files import atomic_write
from mmengine_agent.run.setup import make_parser


def main() -> None:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("input", metavar="IN", help="checkpoint file or address")
    add("output", type=Path, metavar="OUT", help="file to write, .pth or .safetensors")
    text = "resize the tables of a backbone to those of N-pixel images (default: keep them)"
    add("--pretrain-img-size", type=int, metavar="N", help=text)
    add("--force", action="store_true", help="replace OUT if it exists")
    args = parser.parse_args()
    check_output(args.output, args.force)
    install_safe_loader()
    checkpoint = CheckpointLoader.load_checkpoint(args.input, "cpu")
    save(convert(checkpoint, args.input, args.pretrain_img_size), args.output)
    print(f"written: {args.output} ({args.output.stat().st_size / 2**20:.1f} MiB)")


def convert(checkpoint: Any, source: str, pretrain_img_size: int | None) -> dict[str, Tensor]:
    """The weights to write: of a backbone, or all of a detector or segmentor.

    Raises:
        UserError: if there is no whole backbone of a published model in the checkpoint.
    """
    try:
        weights = unwrap(checkpoint)
        model = build_like(weights, pretrain_img_size)
        fit = backbone_weights(checkpoint, model)
    except ValueError as error:
        raise UserError(f"cannot convert {source}: {error}") from error
    print(f"{source} looks like {looks_like(weights)}\nbackbone: {fit}")
    backbone = {key: value for key, value in fit.weights.items() if key not in fit.new}
    whole = unwrap(checkpoint, backbone=False)
    if not any(key.startswith("backbone.") for key in whole):
        return backbone
    rest = {key: value for key, value in whole.items() if not key.startswith("backbone.")}
    print(f"neck and heads: {len(rest)} tensors, kept as they are")
    return {**{f"backbone.{key}": value for key, value in backbone.items()}, **rest}


def check_output(out: Path, force: bool) -> None:
    """Raise UserError if OUT has another ending or is there already."""
    if out.suffix not in (".pth", ".safetensors") or out.is_dir():
        raise UserError(f"OUT must be a file that ends in .pth or .safetensors, got {out}")
    if out.exists() and not force:
        raise UserError(f"{out} exists; --force replaces it")


def save(weights: dict[str, Tensor], out: Path) -> None:
    """Write weights.

    Raises:
        UserError: if OUT cannot be written.
    """
    weights = {key: value.detach().clone().contiguous() for key, value in weights.items()}
    try:
        with atomic_write(out) as part:
            if out.suffix == ".safetensors":
                from safetensors.torch import save_file

                save_file(weights, part)
            else:
                torch.save({"state_dict": weights}, part)
    except (ImportError, OSError) as error:  # without safetensors, or on a full disk
        raise UserError(f"cannot write {out}: {error}") from error
