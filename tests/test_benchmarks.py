"""The benchmarks: the published form is ours, memory and turns are counted right, tools report."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import backbones
import candidates
import growth
import make_demo_data
import measure
import profiling
import pytest
import steps
import torch
from helpers import SMALL, normal, seed_weights, seeded_input, small_pvt
from published import Published
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from agent_attention import AgentPVT, AgentSwinTransformer
from agent_attention.backbones import pvt, swin
from mmengine_agent.errors import UserError

SMALL_SWIN: dict[str, Any] = {"embed_dim": 12, "depths": (2, 1, 2, 2), "num_heads": (1, 2, 3, 4)}
MIB = 2**20


def small_swin(**arguments: Any) -> AgentSwinTransformer:
    return seed_weights(AgentSwinTransformer(arch=SMALL_SWIN, **arguments))


BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "pvt": small_pvt,
    "pvt with softmax stages": lambda: small_pvt(attn_types="ABAB"),
    "pvt of two stages": lambda: small_pvt(out_indices=(0, 1)),
    "swin": small_swin,
    "swin with mixed stages": lambda: small_swin(attn_types=("A", "B", "1A1B", "B")),
    "swin with larger windows": lambda: small_swin(window_size=72),
    "pvt-t": lambda: seed_weights(AgentPVT("tiny")),
    "swin-t": lambda: seed_weights(AgentSwinTransformer("tiny")),
}


def near(found: Tensor, wanted: Tensor, relative: float = 1e-5) -> bool:
    """Whether no value is off by more than a fraction of the largest."""
    return bool((found - wanted).abs().max() <= relative * wanted.abs().max())


# --- the published formulation


WHOLE = ("pvt-t", "swin-t")  # what they have besides does not depend on the size of the image
SIZED = [
    (name, size)
    for name in BUILDERS
    for size in ([(96, 160)] if name in WHOLE else [(45, 71), (96, 160), (224, 224)])
]


@pytest.mark.parametrize(("name", "size"), SIZED)
def test_the_published_form_gives_our_features(name: str, size: tuple[int, int]) -> None:
    model, image = BUILDERS[name]().eval(), seeded_input(2, *size)
    with torch.no_grad():
        pairs = list(zip(Published(model)(image), model(image), strict=True))
    assert len(pairs) == len(model.get_submodule("").out_indices)
    for found, wanted in pairs:
        assert found.shape == wanted.shape and near(found, wanted)


@pytest.mark.parametrize("name", ["pvt", "swin with mixed stages"])
def test_the_published_form_gives_our_gradients(name: str) -> None:
    model = BUILDERS[name]()
    published = Published(model)
    for each in (model, published):
        outs = each(seeded_input(1, 72, 104))
        sum((out * normal(i, tuple(out.shape))).sum() for i, out in enumerate(outs)).backward()
    wanted = dict(model.named_parameters())
    for key, parameter in published.model.named_parameters():
        ours = wanted[key].grad
        assert parameter.grad is not None and ours is not None
        assert near(parameter.grad, ours, 1e-4), key


def test_the_published_form_has_our_keys_and_weights_of_its_own() -> None:
    for build in (small_pvt, small_swin):
        model = build()
        published = Published(model).model
        ours, theirs = model.state_dict(), published.state_dict()
        assert ours.keys() == theirs.keys()
        published.load_state_dict(ours)
        assert all(torch.equal(theirs[key], ours[key]) for key in ours)
        assert not {t.data_ptr() for t in ours.values()} & {t.data_ptr() for t in theirs.values()}


@pytest.mark.parametrize("build", [small_pvt, small_swin])
def test_the_published_form_resizes_eight_times_a_block(
    build: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    resize = nn.functional.interpolate
    monkeypatch.setattr(
        nn.functional, "interpolate", lambda *a, **k: (calls.append(a), resize(*a, **k))[1]
    )
    grids = ((3, 4), (5, 4), (8, 7), (6, 8))  # none is that of the base agents
    model = Published(build(agent_shapes=grids))
    blocks = sum(hasattr(module, "an_bias") for module in model.modules())
    positions = sum("pos_embed" in name for name, _ in model.named_parameters())
    for _ in range(2):
        calls.clear()
        model(seeded_input(1, 64, 96))
        assert len(calls) == 8 * blocks + positions


def test_other_models_have_no_published_form() -> None:
    with pytest.raises(TypeError, match="no published form of Linear"):
        Published(nn.Linear(2, 2))


# --- measuring


def allocate() -> Tensor:
    first = torch.empty(1000)
    second = torch.empty(2000)
    del first
    third = torch.empty(500)
    return third if second.numel() else second


def test_memory_is_replayed_to_the_byte() -> None:
    assert measure.allocated(allocate) == (12_000, 2_000)
    assert measure.peak_memory(allocate) == 12_000
    assert measure.peak_memory(lambda: None) == 0


def test_memory_from_before_does_not_count() -> None:
    held = [torch.empty(4000)]
    assert measure.allocated(lambda: (held.pop(), torch.empty(500))[1]) == (2_000, 2_000)


def test_memory_of_a_step_is_the_same_each_time() -> None:
    setting = candidates.Setting(measure.CPU, torch.float32, 1, (64, 96))
    step = candidates.Step(small_pvt(), setting, "training")
    step()
    assert measure.peak_memory(step) == measure.peak_memory(step) > 0


@pytest.fixture
def factors() -> tuple[Tensor, Tensor]:
    """x (1000, 10) and w (10, 10), of which w needs a gradient."""
    return normal(0, (1000, 10)), normal(1, (10, 10)).requires_grad_()


def test_saved_bytes_are_those_that_backward_needs(factors: tuple[Tensor, Tensor]) -> None:
    x, w = factors
    each = x.nbytes
    assert measure.saved_bytes(lambda: x @ w) == 0  # only x, which was there before
    assert measure.saved_bytes(lambda: (x + 1) @ w) == each
    assert measure.saved_bytes(lambda: ((x + 1) @ w).exp()) == 2 * each  # and its own result
    assert measure.saved_bytes(lambda: ((x @ w).relu().exp(), x + 2)) == 2 * each
    with torch.no_grad():
        assert measure.saved_bytes(lambda: (x @ w).exp()) == 0


def test_saved_bytes_see_what_checkpointing_keeps(factors: tuple[Tensor, Tensor]) -> None:
    x, w = factors

    def block(y: Tensor) -> Tensor:
        return (y @ w).exp().exp()

    def recomputed() -> Tensor:
        return checkpoint(block, x + 1, use_reentrant=False, preserve_rng_state=False)

    assert measure.saved_bytes(lambda: block(x + 1)) == 3 * x.nbytes
    assert measure.saved_bytes(recomputed) == x.nbytes


def test_candidates_take_turns_after_a_warm_up_each() -> None:
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) for name in "abc"}
    found = measure.times(calls, repeats=2)
    assert "".join(order) == "abc" * 3
    assert all(len(each) == 2 and min(each) >= 0 for each in found.values())


def test_multiply_adds_are_those_of_the_products() -> None:
    model = nn.Conv2d(3, 8, 3, padding=1)
    assert measure.multiply_adds(model, (2, 3, 10, 20)) == 2 * 8 * 3 * 9 * 200
    assert measure.matmul_share(macs=50, took=2.0, peak=100.0) == 0.5


def test_matrix_product_is_counted() -> None:
    product, flops = measure.matmul_peak(torch.float32, measure.CPU, side=16)
    assert product().shape == (16, 16) and flops == 2 * 16**3


# --- growth


def grown(*peaks: int, median: float = 1.0) -> list[dict[str, Any]]:
    sides = (100, 200, 400)
    return [
        {"size": (side, side), "batch": 1, "agents": None, "median": median, "peak_memory": peak}
        for side, peak in zip(sides, peaks, strict=False)
    ]


@pytest.mark.parametrize(
    ("known", "note"),
    [
        ([], ""),
        (grown(MIB), ""),
        (grown(MIB, median=11), "took 11 s at 1 x 100x100"),
        (grown(2 * MIB), "would take about 0.5 GiB"),  # feared to be quadratic: 256 times
        (grown(MIB, 4 * MIB), ""),  # linear: 16 MiB
        (grown(4 * MIB, 64 * MIB), "would take about 1.0 GiB"),  # quadratic, as measured
        ([*grown(MIB), {"skipped": "out of memory"}], "out of memory before"),
    ],
)
def test_what_would_not_fit_is_left_out(known: list[dict[str, Any]], note: str) -> None:
    limits = growth.Limits(max_memory=500 * MIB, max_seconds=10)
    assert growth.excess(known, growth.Point((400, 400), 1), limits) == note


# --- the commands


def run(
    tool: Any, monkeypatch: pytest.MonkeyPatch, *arguments: str, config: str | None = None
) -> None:
    monkeypatch.setattr(sys, "argv", [tool.__file__, *([config] if config else []), *arguments])
    tool.main()


def check_files(path: Path) -> dict[str, Any]:
    """The report at a path, with a picture beside it."""
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    report = json.loads(path.read_text())
    assert {"date", "command", "torch", "cpu", "gpu", "threads"} <= report.keys()
    return report


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small architectures and a small matrix product."""
    monkeypatch.setitem(pvt.ARCHS, "tiny", SMALL)
    monkeypatch.setitem(swin.ARCHS, "tiny", SMALL_SWIN)
    product = measure.matmul_peak
    for tool in (backbones, profiling):
        monkeypatch.setattr(tool, "matmul_peak", lambda *where: product(*where, side=64))


@pytest.mark.usefixtures("quick")
def test_backbones_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--size", "64", "96", "--repeats", "1", "--device", "cpu", "--out", str(tmp_path)]
    run(backbones, monkeypatch, "--models", "pvt-t,swin-t", *flags)
    report = check_files(tmp_path / "backbones.json")
    records = report["records"]
    ways = {(r["model"], r["baseline"], r["mode"]) for r in records}
    training = {"ours", "ours-cp", "published", "softmax"}
    for model in ("pvt-t", "swin-t"):
        assert {b for m, b, mode in ways if (m, mode) == (model, "training")} == training
    assert {("resnet-50", "resnet-50", mode) for mode in candidates.MODES} < ways
    assert len(ways) == len(records) == 2 * (3 + 4) + 2
    by = {(r["model"], r["baseline"], r["mode"]): r for r in records}
    for record in records:
        assert len(record["times"]) == 1 and record["peak_memory"] > 0
        assert record["share_of_peak"] > 0
    macs = {b: by["pvt-t", b, "training"]["multiply_adds"] for b in training}
    assert macs["ours"] == macs["ours-cp"] == macs["published"] != macs["softmax"]
    saved = {b: by["swin-t", b, "training"]["saved_bytes"] for b in training}
    assert 0 < saved["ours-cp"] < min(saved["ours"], saved["published"])
    assert set(report["published_to_ours"]) == set(candidates.MODES)
    assert "geometric mean over models" in capsys.readouterr().out


@pytest.mark.usefixtures("quick")
def test_a_step_is_taken_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = ["--sizes", "64x96", "--repeats", "1", "--device", "cpu", "--out", str(tmp_path)]
    run(profiling, monkeypatch, "--models", "pvt-t", *flags, "--baselines", "ours,published")
    records = check_files(tmp_path / "profiling.json")["records"]
    by = {(r["baseline"], r["mode"]): r for r in records}
    assert len(by) == len(records) == 4
    for record in records:
        training = record["mode"] == "training"
        assert bool(record["nodes"]) == bool(record["saved_bytes"]) == training
        assert record["kernels"]["products"] and record["seconds"]["products"] > 0
        assert record["python_calls"] > 100
    for mode in candidates.MODES:
        ours, published = (sum(by[b, mode]["kernels"].values()) for b in ("ours", "published"))
        assert ours < published  # fewer and larger operations on small maps


@pytest.mark.usefixtures("quick")
def test_growth_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = ["--models", "pvt-t", "--repeats", "1", "--device", "cpu", "--out", str(tmp_path)]
    run(growth, monkeypatch, *flags, "--sizes", "96", "64")
    records = check_files(tmp_path / "growth-sizes.json")["records"]
    assert [(r["size"][0], r["baseline"]) for r in records] == [
        (side, baseline) for side in (64, 96) for baseline in growth.DEFAULT_FORMS
    ]
    assert records[0]["peak_memory"] < records[3]["peak_memory"]

    run(growth, monkeypatch, *flags, "--agents", "3", "5", "--size", "64", "96")
    records = check_files(tmp_path / "growth-agents.json")["records"]
    assert [r["agents"] for r in records if r["baseline"] == "ours"] == [3, 5]
    assert records[-1]["skipped"] == "has no agents"


@pytest.mark.usefixtures("quick")
def test_ratios_compare_two_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = (growth.Point((64, 64), 4), growth.Point((64, 64), 1))
    monkeypatch.setattr(growth, "RATIOS", [pair])
    flags = ["--repeats", "1", "--device", "cpu", "--out", str(tmp_path)]
    run(growth, monkeypatch, "--ratios", "--models", "pvt-t", *flags)
    big, small, ratio = json.loads((tmp_path / "growth-ratios.json").read_text())["records"]
    assert (big["batch"], small["batch"]) == (4, 1)
    assert ratio["peak_memory"] == big["peak_memory"] / small["peak_memory"]
    assert "4 x 64x64 / 1 x 64x64" in capsys.readouterr().out


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "demo"
    make_demo_data.generate(out, train=8, val=2, size=64)
    return out


@pytest.mark.parametrize(
    ("config", "folder", "batch"),
    [("agent_pvt_maskrcnn_demo", "coco", 1), ("agent_pvt_semantic_fpn_demo", "ade", 2)],
)
def test_steps_are_timed_by_part(
    config: str,
    folder: str,
    batch: int,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = Path(__file__).parents[1] / f"configs/demo/{config}.py"
    flags = ["--repeats", "1", "--out", str(tmp_path), "--data-root", str(data / folder)]
    options = ["--cfg-options", f"train_dataloader.batch_size={batch}"]
    run(steps, monkeypatch, *flags, *options, config=str(path))
    report = check_files(tmp_path / f"steps-{config}.json")
    for mode, parts in (("training", steps.TRAINING), ("inference", steps.INFERENCE)):
        assert set(report["steps"][mode][0]) == set(parts)
        assert min(report["medians"][mode].values()) > 0
    assert report["batch"]["training"] == batch


def test_missing_data_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(__file__).parents[1] / "configs/demo/agent_pvt_maskrcnn_demo.py"
    flags = ["--data-root", str(tmp_path / "nowhere"), "--out", str(tmp_path)]
    with pytest.raises(UserError, match="nowhere"):
        run(steps, monkeypatch, *flags, config=str(path))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--models", "pvt-x"], "no 'pvt-x'; there are "),
        (["--baselines", "theirs"], "no 'theirs'; there are ours"),
        (["--repeats", "0"], "'0' is no whole number from 1"),
    ],
)
def test_unknown_values_of_flags_are_refused(
    flags: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        run(backbones, monkeypatch, *flags)
    assert message in capsys.readouterr().err


def test_small_images_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="at least 32 pixels, got 16x64"):
        run(backbones, monkeypatch, "--size", "16", "64", "--device", "cpu")
