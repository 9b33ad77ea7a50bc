"""Classifiers of published files: the authors' logits, their evaluation, and mistakes."""

import functools
import json
from pathlib import Path
from typing import Any

import fork_server
import numpy as np
import pytest
import torch
from golden_cases import Case, check_summary, published_keys, read
from helpers import seeded_input, seeded_tensor
from PIL import Image
from published_files import published_shapes
from torch import Tensor

from agent_attention import AgentPVT, FLattenSwin
from agent_attention.weights.classifier import Classifier, build_classifier
from agent_attention.weights.fit import backbone_weights
from mmengine_agent.classify import prepare_image

State = dict[str, Tensor]
ROOT = Path(__file__).parents[1]
KEYS = published_keys()
OLDER = ("pvt_t", "pvt_s", "pvt_m", "pvt_l", "pvt_m_256", "swin_t", "swin_s", "swin_b")
OLDER = (*OLDER, "swin_s_288", "swin_b_384")
BASE_GRIDS = ((3, 3), (4, 4), (7, 7), (7, 7))
SMALL = "flatten_pvt_v2_b0"
close = torch.testing.assert_close


def shapes_of(variant: str) -> dict[str, list[int]]:
    return KEYS[variant] if variant in KEYS else published_shapes(variant)


@functools.cache
def seeded(variant: str) -> State:
    """The tensors of a published file."""
    return {key: seeded_tensor(key, shape) for key, shape in shapes_of(variant).items()}


# ---- the model


@pytest.mark.parametrize("case", read("logits"), ids=lambda c: f"{c['variant']}-{c['height']}")
@torch.no_grad()
def test_logits_are_those_of_the_authors(case: Case) -> None:
    model = build_classifier({"model": seeded(case["variant"])})
    x = seeded_input(case["batch"], case["height"], case["width"])
    check_summary(model.backbone.pooled(x), case["features"], 2e-4)
    check_summary(model(x), case["logits"], 2e-4)


@torch.no_grad()
def test_agent_pvt_averages_its_last_map() -> None:
    weights, x = seeded("pvt_t"), seeded_input(2, 224, 224)
    plain = AgentPVT("tiny", BASE_GRIDS)
    plain.load_state_dict(backbone_weights(weights, plain).weights)
    features = plain.eval()(x)[3].mean((2, 3))
    want = features @ weights["head.weight"].t() + weights["head.bias"]
    close(build_classifier(weights)(x), want, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_agent_swin_norms_and_averages_and_shifts_no_map_of_one_window() -> None:
    weights, x = seeded("swin_t"), seeded_input(1, 224, 224)
    mixers = ("agent", "agent", "agent", "windows")  # FLatten-Swin shifts none either
    plain = FLattenSwin("tiny", mixers, agent_shapes=BASE_GRIDS)
    plain.load_state_dict(backbone_weights(weights, plain).weights)
    raw: list[Tensor] = []
    plain.norm3.register_forward_pre_hook(lambda _, args: raw.append(args[0]))
    plain.eval()(x)
    normed = torch.layer_norm(raw[0], (768,), weights["norm.weight"], weights["norm.bias"], 1e-5)
    want = normed.mean(1) @ weights["head.weight"].t() + weights["head.bias"]
    close(build_classifier(weights)(x), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("variant", [*KEYS, *OLDER])
def test_every_published_file_is_a_classifier(variant: str) -> None:
    last = variant.rpartition("_")[2]
    side = int(last) if len(last) == 3 else 224
    with torch.device("meta"):
        weights = {key: torch.empty(shape) for key, shape in shapes_of(variant).items()}
        model = build_classifier({"state_dict_ema": weights})
    squashed = 384 if "swin_b_384" in variant and "cswin" not in variant else side * 256 // 224
    assert (model.img_size, model.resize_to) == (side, squashed)
    assert model.head.out_features == 1000


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"head.weight": None}, r"no classifier's head \(head\.weight, head\.bias\)"),
        ({"head.bias": torch.zeros(3)}, r"does not fit 256 features: .*head\.bias \(3,\)"),
        ({"norm4.weight": None}, r"1 missing \(norm4\.weight\)"),
        ({"block1.0.gamma": torch.zeros(3)}, r"1 left over \(block1\.0\.gamma\)"),
        ({"patch_embed1.proj.weight": None}, "no backbone known here"),
    ],
)
def test_a_file_that_is_not_whole_is_refused(change: dict[str, Any], fault: str) -> None:
    changed = {**seeded(SMALL), **change}
    with pytest.raises(ValueError, match=fault):
        build_classifier({key: value for key, value in changed.items() if value is not None})


def test_a_norm_that_a_backbone_does_without_is_missed() -> None:
    weights = {key: value for key, value in seeded("swin_t").items() if key != "norm.bias"}
    with pytest.raises(ValueError, match=r"norm before the head is missing \(norm3\.bias\)"):
        build_classifier(weights)


# ---- the transform


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.RandomState(seed).randint(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize(("resize_to", "side"), [(256, 224), (292, 256), (329, 288), (384, 384)])
@pytest.mark.parametrize("size", [(500, 375), (30, 700), (224, 224)])
def test_a_picture_is_squashed_and_its_centre_taken(
    size: tuple[int, int], resize_to: int, side: int
) -> None:
    image = picture(*size)
    out = prepare_image(image, resize_to, side)
    assert out.shape == (3, side, side)
    whole = prepare_image(image, resize_to, resize_to)
    start = round((resize_to - side) / 2)
    close(out, whole[:, start : start + side, start : start + side])
    squashed = np.asarray(image.resize((resize_to, resize_to), Image.Resampling.BICUBIC))
    red = torch.from_numpy(squashed[:, :, 0].copy()) / 255
    close(whole[0], (red - 0.485) / 0.229)


def test_grey_pictures_and_palettes_have_three_channels() -> None:
    for mode in ("L", "P", "RGBA", "CMYK"):
        assert prepare_image(picture(40, 30).convert(mode), 256, 224).shape == (3, 224, 224)


# ---- the tool


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published file with a head of three classes."""
    path = tmp_path_factory.mktemp("weights") / "flatten_pvt_v2_b0.pth"
    head = {key: value[:3].clone() for key, value in seeded(SMALL).items() if "head." in key}
    torch.save({"model": {**seeded(SMALL), **head}, "epoch": 299}, path)
    return path


@pytest.fixture(scope="module")
def imagenet(checkpoint: Path) -> Path:
    """Three class folders of pictures, in val."""
    for i in range(7):
        path = checkpoint.with_name("imagenet") / f"val/n0{i % 3}/{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(64 + i, 48, i).resize((6, 5)).resize((64 + i, 48)).save(path)
    return checkpoint.with_name("imagenet")


def classify(*arguments: Any) -> Any:
    return fork_server.run([ROOT / "tools/classify.py", "--workers", "0", *arguments])


def refusal(*arguments: Any) -> str:
    done = classify(*arguments)
    assert (done.returncode, done.stdout) == (1, "") or "looks like" in done.stdout
    assert done.stderr.count("error: ") == 1 and "Traceback" not in done.stderr
    return done.stderr.partition("error: ")[2]


@torch.no_grad()
def labels_of(checkpoint: Path, paths: list[Path]) -> Tensor:
    """The most likely class of each picture."""
    model: Classifier = build_classifier(torch.load(checkpoint))
    images = [prepare_image(Image.open(path), model.resize_to, model.img_size) for path in paths]
    return model(torch.stack(images)).argmax(1)


@pytest.mark.parametrize("batch", [1, 4])
def test_top_1_of_class_folders(
    batch: int, checkpoint: Path, imagenet: Path, tmp_path: Path
) -> None:
    paths = sorted(imagenet.rglob("*.png"))
    truth = torch.tensor([int(path.parent.name[-1]) for path in paths])
    top1 = 100 * (labels_of(checkpoint, paths) == truth).double().mean().item()
    assert 0 < top1 < 100
    flags = ["--imagenet", imagenet, "--batch-size", batch, "--json", tmp_path / "out/found.json"]
    done = classify(checkpoint, *flags)
    assert done.returncode == 0, done.stderr
    assert f"top-1 {top1:.3f}, top-5 100.000 of 7 images" in done.stdout
    found = json.loads((tmp_path / "out/found.json").read_text())
    assert found["top1"] == pytest.approx(top1) and found["images"] == 7
    assert found["model"] == "FLattenPVTv2 'b0' pre-trained at 224 pixels"
    # names say which folder is which label: here in the other direction
    (tmp_path / "names.txt").write_text("n02 two\nn01\nn00 none at all\n")
    turned = ["--device", "cpu", "--classes", tmp_path / "names.txt"]
    top1 = 100 * (labels_of(checkpoint, paths) == 2 - truth).double().mean().item()
    assert f"top-1 {top1:.3f}," in classify(checkpoint, *flags, *turned).stdout


def test_pictures_are_classified_by_name(checkpoint: Path, imagenet: Path, tmp_path: Path) -> None:
    paths = sorted(imagenet.rglob("*.png"))[:2]
    (tmp_path / "names.txt").write_text("a cat\na dog\na tree\n")
    labels = [str(each) for each in labels_of(checkpoint, paths).tolist()]
    names = [["a cat", "a dog", "a tree"][int(label)] for label in labels]
    for flags, wanted in (([], labels), (["--classes", tmp_path / "names.txt"], names)):
        said = classify(checkpoint, *paths, *flags).stdout.splitlines()
        first = [said[said.index(str(path)) + 1] for path in paths]
        assert [line.partition("%")[2].strip() for line in first] == wanted


MISTAKES: dict[str, tuple[list[str], list[str]]] = {
    "no checkpoint": (["nowhere.pth", "{picture}"], ["nowhere.pth"]),
    "no published file": (["{resnet}", "{picture}"], ["{resnet}", "conv1.weight"]),
    "a picture as a checkpoint": (["{picture}", "{picture}"], ["{picture}"]),
    "nothing to do": (["{checkpoint}"], ["--imagenet"]),
    "both": (["{checkpoint}", "{picture}", "--imagenet", "{imagenet}"], ["--imagenet"]),
    "no folder": (["{checkpoint}", "--imagenet", "nowhere"], ["nowhere", "no such folder"]),
    "no class folders": (["{checkpoint}", "--imagenet", "{empty}"], ["{empty}", "n01440764/"]),
    "other classes": (["{checkpoint}", "--imagenet", "{two}"], ["2 class", "3", "--classes"]),
    "few names": (["{checkpoint}", "{picture}", "--classes", "{few}"], ["1 names", "3 classes"]),
    "no names": (["{checkpoint}", "{picture}", "--classes", "no.txt"], ["no.txt"]),
    "a broken picture": (["{checkpoint}", "{broken}"], ["{broken}", "replace"]),
    "no picture": (["{checkpoint}", "nowhere.jpg"], ["nowhere.jpg", "no such file"]),
    "a broken set": (
        ["{checkpoint}", "--imagenet", "{damaged}", "--workers", "2"],
        ["c/a.png", "replace"],
    ),
    "a batch of none": (["{checkpoint}", "{picture}", "--batch-size", "0"], ["--batch-size"]),
    "no device": (["{checkpoint}", "{picture}", "--device", "tpu"], ["--device", "tpu"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_message(
    mistake: str, checkpoint: Path, imagenet: Path, tmp_path: Path
) -> None:
    places = {name: tmp_path / name for name in ("empty", "two", "damaged")}
    places |= {"checkpoint": checkpoint, "imagenet": imagenet, "resnet": tmp_path / "resnet.pth"}
    places |= {"picture": imagenet / "val/n00/0.png", "broken": tmp_path / "broken.png"}
    places["few"] = tmp_path / "few.txt"
    places["few"].write_text("one\n")
    torch.save({"conv1.weight": torch.ones(3), "fc.bias": torch.ones(3)}, places["resnet"])
    (tmp_path / "empty").mkdir()
    whole = places["picture"].read_bytes()
    places["broken"].write_bytes(whole[: len(whole) // 2])
    for name in ("two/a", "two/b", "damaged/a", "damaged/b", "damaged/c"):
        path = tmp_path / name / "a.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(places["broken" if name == "damaged/c" else "picture"].read_bytes())
    arguments, wanted = MISTAKES[mistake]
    said = refusal(*(each.format(**places) for each in arguments))
    for words in wanted:
        assert words.format(**places) in said
