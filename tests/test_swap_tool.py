"""tools/swap.py: a trained model with its attention swapped, a search, and its config."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from tool_runs import ADE_DEMO, CONFIGS, output, python, refusal
from torch.nn import functional as F

from agent_attention.swap import Agent, PooledKeys
from agent_toolkit.swap.compare import compare_locally, find_layers
from agent_toolkit.swap.search import Move, search
from mmengine_agent.errors import UserError
from mmengine_agent.swapped import SwappedAttention

LAYERS = ["layers.0.attn", "layers.1.attn"]
VIT = {
    **{"type": "VisionTransformer", "img_size": 96, "patch_size": 2, "embed_dims": 16},
    **{"num_layers": 2, "num_heads": 2, "mlp_ratio": 1, "with_cls_token": False},
}
HEAD = {
    **{"type": "FCNHead", "in_channels": 16, "channels": 16, "num_convs": 0, "num_classes": 8},
    **{"concat_input": False, "loss_decode": {"type": "CrossEntropyLoss"}},
}


@pytest.fixture(scope="module")
def folder(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViT segmentor's config and weights, and what the tool made of them."""
    folder = tmp_path_factory.mktemp("swap")
    data_preprocessor = {"size": (96, 96), "test_cfg": {"size_divisor": 2}}
    model = {
        "data_preprocessor": data_preprocessor,
        "neck": None,
        "backbone": {"_delete_": True, **VIT},
        "decode_head": {"_delete_": True, **HEAD},
    }
    (folder / "vit.py").write_text(f"_base_ = {str(CONFIGS / ADE_DEMO)!r}\nmodel = {model!r}\n")
    init_default_scope("mmseg")
    torch.manual_seed(0)
    built = MODELS.build(Config.fromfile(folder / "vit.py").model)
    for layer in built.backbone.layers:  # scores that differ, as those of trained weights do
        torch.nn.init.normal_(layer.attn.attn.in_proj_weight, std=1.0)
    torch.save({"state_dict": built.state_dict()}, folder / "vit.pth")
    output(swap(folder, data))
    return folder


def swap(folder: Path, data: Path, *more: str) -> object:
    flags = ("--forms", "agent", "pooled_keys", "--grids", "2", "3x4", "--max-loss", "0.3")
    where = ("--data-root", str(data / "ade"), "--work-dir", "out", "--images", "2")
    few = ("--batches", "1", "--rounds", "1", "--workers", "0")
    return python("swap.py", "vit.py", "vit.pth", *flags, *where, *few, *more, cwd=folder)


def state(folder: Path) -> dict[str, object]:
    return json.loads((folder / "out/swap.json").read_text())


def test_every_form_and_grid_is_tested_beside_softmax(folder: Path) -> None:
    rows = state(folder)["rows"]
    forms = ["agent 2x2", "agent 3x4", "pooled_keys 2x2", "pooled_keys 3x4"]
    assert list(rows) == ["as it is", "fused softmax", *forms, "chosen layers"]
    assert all(row["seconds"] > 0 and row["memory"] > 0 for row in rows.values())
    assert rows["fused softmax"]["score"] == rows["as it is"]["score"] > 0
    page = (folder / "out/swap.md").read_text()
    assert all(f"| {name} |" in page for name in [*rows, *LAYERS])


def test_layers_are_compared_on_the_softmax_models_own_inputs(folder: Path) -> None:
    layers = state(folder)["layers"]
    assert list(layers) == LAYERS
    for layer in layers.values():
        assert layer["tokens"][0] == layer["tokens"][1] > 2000
        coarse, fine = (layer["forms"][f"pooled_keys {grid}"] for grid in ("2x2", "3x4"))
        assert coarse["error"] > fine["error"] > 0 and coarse["cosine"] < fine["cosine"] < 1


def test_the_search_keeps_the_score_it_was_given(folder: Path) -> None:
    found = state(folder)
    least = 0.7 * found["rows"]["as it is"]["score"]
    assert set(found["chosen"]) == set(LAYERS) and found["chosen_score"] >= least
    assert all(kept == (score >= least) for *_, score, kept in found["steps"])


def test_the_config_is_tested_as_the_search_has_scored_it(folder: Path, data: Path) -> None:
    options = ("--cfg-options", "test_dataloader.dataset.indices=2", "--work-dir", "tested")
    output(python("test.py", "out/swapped.py", "vit.pth", *options, cwd=folder))
    metrics = json.loads((folder / "tested/metrics.json").read_text())["metrics"]
    assert metrics["mIoU"] == pytest.approx(state(folder)["chosen_score"])


def test_the_config_is_trained_from_the_swapped_weights(folder: Path) -> None:
    few = ("--iters", "1", "--batch-size", "2", "--workers", "0", "--work-dir", "trained")
    output(python("train.py", "out/swapped.py", *few, cwd=folder))
    before, after = (
        torch.load(folder / file, weights_only=False)["state_dict"]
        for file in ("vit.pth", "trained/iter_1.pth")
    )
    assert before.keys() == after.keys()
    weight = "backbone.layers.0.attn.attn.in_proj_weight"
    assert 0 < (before[weight] - after[weight]).abs().max() < 0.1


def test_the_same_command_goes_on(folder: Path, data: Path) -> None:
    content = state(folder)
    content["scores"].popitem()
    (folder / "out/swap.json").write_text(json.dumps(content))
    said = output(swap(folder, data))
    assert "goes on from" in said and "errors of each layer" not in said
    again = state(folder)
    assert again["steps"] == content["steps"] and again["chosen"] == content["chosen"]


def test_mistakes_are_one_message(folder: Path, data: Path) -> None:
    where = ("--data-root", str(data / "ade"), "--work-dir", "none")
    wrong = python("swap.py", "vit.py", "no.pth", *where, cwd=folder)
    assert "no checkpoint no.pth" in refusal(wrong)
    assert python("swap.py", "vit.py", "vit.pth", "--max-loss", "5", cwd=folder).returncode == 2
    assert python("swap.py", "vit.py", "vit.pth", "--grids", "0", cwd=folder).returncode == 2
    assert not (folder / "none").exists()


# --- the parts


def test_moves_are_tried_from_the_smallest_error_and_cheaper_ones_replace_dearer() -> None:
    lost = {("a", "dear"): 0.0, ("a", "cheap"): 0.02, ("b", "dear"): 0.02, ("b", "cheap"): 0.5}
    moves = [
        *(Move("a", "cheap", 0.3, 0.1), Move("a", "dear", 0.1, 0.5), Move("a", "idle", 0.0, 1.2)),
        *(Move("b", "dear", 0.2, 0.5), Move("b", "cheap", 0.4, 0.1), Move("b", "late", 0.5, 0.7)),
    ]

    def score(choice: Mapping[str, str | None]) -> float:
        return 1 - sum(lost[layer, form] for layer, form in choice.items() if form)

    steps = list(search(moves, score, least=0.95))
    tried = [(step.move.layer, step.move.form, step.kept) for step in steps]
    kept = [("a", "dear", True), ("b", "dear", True), ("a", "cheap", True)]
    assert tried == [*kept, ("b", "cheap", False)]
    assert steps[-1].choice == {"a": "cheap", "b": "dear"}
    assert re.fullmatch(r"\[5/6\] b cheap: 0\.48, not kept", str(steps[-1]))


def test_local_errors_are_those_of_the_forms_and_leave_the_model_alone() -> None:
    init_default_scope("mmseg")
    model = MODELS.build(VIT)
    model.eval()  # gives None back
    image = torch.randn(1, 3, 16, 24)
    with torch.no_grad():
        before = model(image)[0]
        forms = {"whole": PooledKeys((8, 12)), "agent": Agent((2, 3))}
        seen = compare_locally(model, find_layers(model), forms, lambda: model(image))
        assert torch.equal(model(image)[0], before)
    for each in seen.values():
        whole, agent = each.figures()["whole"], each.figures()["agent"]
        assert whole.error < 1e-5 and whole.cosine > 0.9999
        assert agent.error > 1e-3 and agent.cosine < whole.cosine and agent.cost > 0


def test_a_swapped_backbone_has_the_keys_of_its_own_and_gradients() -> None:
    init_default_scope("mmseg")
    plain = MODELS.build(VIT)  # in training mode
    swaps = [{"form": "agent", "grid": (3, 4), "layers": LAYERS[:1]}]
    model = SwappedAttention(VIT, swaps)
    assert model.state_dict().keys() == plain.state_dict().keys()
    model.load_state_dict(plain.state_dict())
    image = torch.randn(1, 3, 16, 24)
    assert not torch.allclose(model(image)[0], plain(image)[0])
    F.mse_loss(model(image)[0], torch.zeros(1)).backward()
    assert model.layers[0].attn.attn.in_proj_weight.grad.abs().max() > 0
    for wrong in ({"form": "agnt"}, {"form": "agent", "sides": 3}, {"form": "agent"}):
        with pytest.raises(UserError, match=r"agnt|sides|no attention layers\.9\.attn"):
            SwappedAttention(VIT, [{**wrong, "layers": ["layers.9.attn"]}])
