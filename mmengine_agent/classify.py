"""ImageNet classification with published files, as their authors evaluate them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from agent_attention.weights.classifier import Classifier, build_classifier
from mmengine_agent.checkpoints import load_local
from mmengine_agent.data.images import IMAGES, ImageError, open_whole
from mmengine_agent.errors import BadSample, UserError

_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)  # of ImageNet, RGB
_STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def load_classifier(checkpoint: str) -> Classifier:
    """The classifier of a published ImageNet file.

    Raises:
        UserError: if it cannot be read safely, or is of no published classifier.
    """
    try:
        return build_classifier(load_local(checkpoint))
    except ValueError as error:
        raise UserError(f"cannot classify with {checkpoint}: {error}") from error


def prepare_image(image: Image.Image, resize_to: int, img_size: int) -> Tensor:
    """A picture of any size as the classifiers take it: (3, S, S), normalised.

    Args:
        image: the picture; its EXIF orientation is left alone, as the authors do.
        resize_to: side that it is squashed to, bicubic, whatever its proportions.
        img_size: S, the side of the crop from the centre.
    """
    squashed = image.convert("RGB").resize((resize_to, resize_to), Image.Resampling.BICUBIC)
    start = round((resize_to - img_size) / 2)
    crop = squashed.crop((start, start, start + img_size, start + img_size))
    pixels = torch.from_numpy(np.array(crop)).permute(2, 0, 1).float() / 255
    return (pixels - _MEAN) / _STD


class Pictures(Dataset[tuple[Tensor, int]]):
    """Image files with labels, prepared for a classifier."""

    def __init__(self, paths: Sequence[Path], labels: Sequence[int], model: Classifier) -> None:
        self.paths, self.labels = paths, labels
        self.sizes = (model.resize_to, model.img_size)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        try:
            image = prepare_image(open_whole(self.paths[index]), *self.sizes)
        except ImageError as error:
            raise BadSample(f"{error.args[1]}: replace the file, or take it away") from error
        return image, self.labels[index]


def find_labelled(folder: Path, classes: Sequence[str], count: int) -> tuple[list[Path], list[int]]:
    """The images below class folders, and the label of each.

    Args:
        folder: holds a folder for each class, itself or in ``val``.
        classes: names in the order of labels, each the name of its folder or beginning with it;
            without names, folders are labelled in the order of theirs, as ImageNet's are.
        count: classes of the model.

    Raises:
        UserError: if there are no such folders, they are not as many, or one has no name.
    """
    if not folder.is_dir():
        raise UserError(f"--imagenet {folder}: there is no such folder")
    folder = folder / "val" if (folder / "val").is_dir() else folder
    names = sorted(each.name for each in folder.iterdir() if each.is_dir())
    numbers = {name: i for i, name in enumerate(names)}
    if classes:
        numbers = {key: i for i, name in enumerate(classes) for key in (name, name.split()[0])}
    elif len(names) not in (0, count):
        raise UserError(
            f"--imagenet {folder}: it has {len(names)} class folders, and the model {count} "
            "classes: give the names of all classes with --classes"
        )
    if unknown := [name for name in names if name not in numbers]:
        raise UserError(f"--imagenet {folder}: --classes has no {unknown[0]}, which is a folder")
    found = [
        (path, numbers[name])
        for name in names
        for path in sorted((folder / name).iterdir())
        if path.suffix.lower() in IMAGES
    ]
    if not found:
        raise UserError(
            f"--imagenet {folder}: there are no images in class folders there; sort the pictures "
            "into a folder for each class, such as n01440764/ILSVRC2012_val_00000293.JPEG"
        )
    return [path for path, _ in found], [label for _, label in found]


@torch.inference_mode()
def score(model: Classifier, pictures: Pictures, batch_size: int, workers: int) -> dict[str, Any]:
    """Top-1 and top-5 of labelled pictures in per cent, and their number, with a bar.

    Raises:
        UserError: if a picture cannot be read; it is named.
    """
    device = model.head.weight.device
    hits, seen = [0, 0], 0
    loader = DataLoader(pictures, batch_size, num_workers=workers)
    with tqdm(total=len(pictures), unit="image") as bar:
        for images, labels in loader:
            order = model(images.to(device)).topk(min(5, model.head.out_features)).indices.cpu()
            right = order == labels[:, None]
            hits = [hits[0] + int(right[:, 0].sum()), hits[1] + int(right.sum())]
            seen += len(labels)
            bar.update(len(labels))
            bar.set_postfix(top1=f"{100 * hits[0] / seen:.2f}", top5=f"{100 * hits[1] / seen:.2f}")
    return {"images": seen, "top1": 100 * hits[0] / seen, "top5": 100 * hits[1] / seen}


@torch.inference_mode()
def classify(model: Classifier, path: Path, classes: Sequence[str]) -> list[Mapping[str, Any]]:
    """The five most likely classes of a picture, best first: label, name if known, probability.

    Raises:
        UserError: if it cannot be read.
    """
    image, _ = Pictures([path], [0], model)[0]
    chances = model(image[None].to(model.head.weight.device))[0].softmax(-1)
    best = chances.topk(min(5, len(chances)))
    return [
        {"label": label, "name": classes[label] if classes else str(label), "probability": chance}
        for chance, label in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]
