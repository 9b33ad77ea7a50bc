"""The names of the console command ``agent-attention``, for help and messages."""

import re
import sys
from pathlib import Path

NAME = "agent-attention"
# by name: what it does, and its script in tools/, if any
COMMANDS = {
    "train": ("train a detector or a segmentor", "train"),
    "test": ("test a checkpoint: mAP or mIoU", "test"),
    "predict": ("predict on images, folders and videos", "predict"),
    "data": ("check a data set before training on it", "prepare_data"),
    "report": ("one HTML file of a work directory", "report"),
    "swap": ("swap softmax attention of a trained model", "swap"),
    "flops": ("count parameters and multiply-adds", "get_flops"),
    "export": ("write ONNX, or torch.export's .pt2", "export"),
    "backbone": ("write a config with another backbone", "with_backbone"),
    "convert": ("convert a published checkpoint", "convert_checkpoint"),
    "attention": ("draw what agents do", "visualize_attention"),
    "demo": ("show a model on a page in the browser", "page"),
    "classify": ("classify with a published ImageNet file", "classify"),
    "configs": ("list the configs that can be given by name", None),
}


def as_called(text: str) -> str:
    """A text that names tools by their files, with the console command's names if that runs."""
    if not Path(sys.argv[0]).name.startswith(NAME):
        return text
    names = {script: name for name, (_, script) in COMMANDS.items() if script}
    return re.sub(
        r"(?:python )?tools/(\w+)\.py",
        lambda found: f"{NAME} {names[found[1]]}" if found[1] in names else found[0],
        text,
    )
