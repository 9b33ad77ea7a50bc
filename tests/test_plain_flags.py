"""--epochs, --batch-size, --lr and the like: what follows from them, and nothing asked twice."""

from argparse import ArgumentParser, Namespace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mmdet
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS
from own_data import CONFIGS, fruit_set, load, scenes_set

from mmengine_agent.config_walk import walk
from mmengine_agent.data.user_data import point_at
from mmengine_agent.errors import UsageError, UserError
from mmengine_agent.run.flags import LOGGERS, add_logger
from mmengine_agent.run.plain_flags import add_plain_flags, apply_plain_flags
from mmengine_agent.run.train import require_schedules

DETECTOR, SEGMENTOR = CONFIGS / "agent_pvt_maskrcnn.py", CONFIGS / "agent_pvt_semantic_fpn.py"
SEGFORMER = CONFIGS / "heads/segformer_agent-pvt-t_8xb2-160k_ade20k-512x512.py"
RTMDET = "rtmdet/rtmdet_tiny_8xb32-300e_coco.py"
YOLOX = "yolox/yolox_s_8xb8-300e_coco.py"
STOCK = Path(mmdet.__path__[0], ".mim/configs")
STEPS = ("begin", "end", "T_max", "milestones", "switch_epoch", "num_last_epochs")


@pytest.fixture
def fruit(tmp_path: Path) -> Config:
    """A detector on a set of three images."""
    cfg = load(DETECTOR)
    point_at(cfg, fruit_set(tmp_path))
    return cfg


@pytest.fixture
def scenes(tmp_path: Path) -> Config:
    """A segmentor on a set of one image."""
    cfg = load(SEGMENTOR)
    point_at(cfg, scenes_set(tmp_path))
    return cfg


def stock(name: str) -> Config:
    return load(STOCK / name)


def steps(cfg: Config) -> dict[str, Any]:
    """Everything that is counted in epochs or iterations, by path."""
    parts = {key: cfg.get(key) for key in ("param_scheduler", "custom_hooks", "default_hooks")}
    found = {f"train_cfg.{key}": value for key, value in cfg.train_cfg.items() if key != "type"}
    for path, node in walk(parts):
        found |= {f"{path}.{key}": node[key] for key in STEPS if node.get(key)}
        if node.get("type") == "CheckpointHook":
            found[f"{path}.interval"] = node["interval"]
    return found


def apply(cfg: Config, *words: str, options: dict[str, Any] | None = None) -> Config:
    parser = ArgumentParser()
    add_plain_flags(parser, training=True)
    apply_plain_flags(cfg, Namespace(**vars(parser.parse_args(words)), cfg_options=options))
    return cfg


def in_order(cfg: Config) -> None:
    """mmengine takes the schedule, and nothing but a decay comes after the end."""
    require_schedules(cfg)
    length = cfg.train_cfg.get("max_epochs") or cfg.train_cfg.max_iters
    for scheduler in cfg.param_scheduler:
        assert scheduler.get("begin", 0) <= length or not scheduler.get("by_epoch", True)
    assert 1 <= cfg.train_cfg.get("val_interval", 1) <= length


# ---- length


def highest_rate(cfg: Config, length: int) -> float:
    """The highest learning rate of a run by iterations, as a share of the config's."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedulers = [
        PARAM_SCHEDULERS.build({**each, "optimizer": optimizer}) for each in cfg.param_scheduler
    ]
    rates = []
    for _ in range(length):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return max(rates)


@pytest.mark.parametrize("length", [3, 9, 19, 20, 150, 2000])
def test_a_warm_up_ends_however_short_the_run(length: int) -> None:
    cfg = apply(load(SEGFORMER), "--iters", str(length))
    in_order(cfg)
    assert highest_rate(cfg, length) > 0.6


def test_the_length_of_a_config_changes_nothing_but_a_long_warm_up(fruit: Config) -> None:
    before = steps(fruit)
    after = steps(apply(fruit, "--epochs", "12"))
    # 24 iterations in all
    assert after == {**before, "param_scheduler.0.end": 2}


@pytest.mark.parametrize("name", [RTMDET, YOLOX])
def test_everything_counted_in_epochs_doubles(name: str, tmp_path: Path) -> None:
    cfg = stock(name)
    point_at(cfg, fruit_set(tmp_path))
    before = steps(cfg)
    after = steps(apply(cfg, "--epochs", "600"))
    for path, value in before.items():
        short = path.startswith("param_scheduler.0") and name == RTMDET  # its warm-up, cut
        if isinstance(value, int) and value > 1 and not short:
            assert after[path] == 2 * value, path
    assert after["train_cfg.max_epochs"] == 600
    if name == RTMDET:
        assert [tuple(each) for each in after["train_cfg.dynamic_intervals"]] == [(560, 1)]


@pytest.mark.parametrize("epochs", [1, 2, 5])
@pytest.mark.parametrize("name", [RTMDET, YOLOX])
def test_few_epochs_have_all_parts_of_the_schedule(name: str, epochs: int, tmp_path: Path) -> None:
    cfg = stock(name)
    point_at(cfg, fruit_set(tmp_path))
    in_order(apply(cfg, "--epochs", str(epochs)))
    found = steps(cfg)
    switch = found.get("custom_hooks.1.switch_epoch", epochs - 1)
    assert 0 <= switch < epochs  # the last epoch is as a whole run ends
    assert found.get("custom_hooks.0.num_last_epochs", 1) == 1


def test_iterations_follow_in_proportion(scenes: Config) -> None:
    before = steps(scenes)
    after = steps(apply(scenes, "--iters", "4000"))
    assert after.keys() == before.keys()
    assert all(after[path] == value // 10 for path, value in before.items())


def test_epochs_of_a_config_by_iterations_are_those_of_its_data(tmp_path: Path) -> None:
    cfg = load(SEGMENTOR)
    point_at(cfg, scenes_set(tmp_path))
    folder = tmp_path / "learn"
    for number in range(6):  # seven images
        for part, end in (("pictures", "png"), ("labels", "png")):
            first = folder / part / f"a.{end}"
            (folder / part / f"{number}.{end}").write_bytes(first.read_bytes())
    apply(cfg, "--batch-size", "2", "--epochs", "30")
    assert cfg.train_cfg.max_iters == 30 * 4
    assert cfg.param_scheduler[0].end == 120
    in_order(cfg)


def test_iterations_of_a_config_by_epochs_are_refused_with_the_length_of_one(fruit: Config) -> None:
    with pytest.raises(UsageError, match=r"take --epochs \(an epoch of its data has 2 iterations"):
        apply(fruit, "--iters", "100")


# ---- the others


def test_rates_of_schedulers_follow_the_rate() -> None:
    cfg = stock(RTMDET)
    share = cfg.param_scheduler[1].eta_min / cfg.optim_wrapper.optimizer.lr
    apply(cfg, "--lr", "0.001")
    assert cfg.optim_wrapper.optimizer.lr == 0.001
    assert cfg.param_scheduler[1].eta_min == pytest.approx(0.001 * share)


def test_loaders_seed_and_batch(fruit: Config, capsys: pytest.CaptureFixture[str]) -> None:
    val = fruit.val_dataloader.batch_size
    apply(fruit, "--workers", "0", "--seed", "0", "--batch-size", "3")
    for loader in (fruit.train_dataloader, fruit.val_dataloader, fruit.test_dataloader):
        assert loader.num_workers == 0 and not loader.persistent_workers
    assert (fruit.train_dataloader.batch_size, fruit.val_dataloader.batch_size) == (3, val)
    assert fruit.randomness.seed == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["--batch-size", "--workers", "--seed"]
    assert "train_dataloader.batch_size 2 -> 3" in lines[0]
    assert "train_dataloader.num_workers 2 -> 0 (and 2 more like it)" in lines[1]


TWICE = [
    (["--epochs", "3"], "train_cfg.max_epochs"),
    (["--epochs", "3"], "param_scheduler.1.milestones"),
    (["--epochs", "3"], "train_cfg"),
    (["--lr", "1"], "optim_wrapper.optimizer.lr"),
    (["--lr", "1"], "optim_wrapper.optimizer"),
    (["--batch-size", "3"], "train_dataloader.batch_size"),
    (["--workers", "3"], "val_dataloader.num_workers"),
    (["--seed", "3"], "randomness"),
    (["--image-size", "64", "64"], "test_dataloader.dataset.pipeline.1.scale"),
    (["--image-size", "64", "64"], "train_dataloader.dataset"),
]


@pytest.mark.parametrize(("words", "option"), TWICE)
def test_a_flag_and_an_option_for_the_same_are_an_error_that_names_both(
    words: list[str], option: str, fruit: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    with pytest.raises(UsageError) as error:
        apply(fruit, "--device", "cpu", *words, options={option: 1})
    assert words[0] in str(error.value) and f"--cfg-options {option} " in str(error.value)
    assert capsys.readouterr().out == ""
    apply(fruit, *words, options={"default_hooks.logger.interval": 1, f"{option}_of_others": 1})


@pytest.mark.parametrize(
    ("given", "option"),
    [
        ({"data_root": "x"}, "val_dataloader.dataset.data_root"),
        ({"accumulate": 2}, "optim_wrapper.accumulative_counts"),
        ({"work_dir": "x"}, "work_dir"),
    ],
)
def test_older_flags_are_asked_once_too(given: dict[str, Any], option: str, fruit: Config) -> None:
    with pytest.raises(UsageError, match="set the same thing"):
        apply_plain_flags(fruit, Namespace(**given, cfg_options={option: "y"}))


@pytest.mark.parametrize(
    "words",
    [
        ["--epochs", "0"],
        ["--iters", "-3"],
        ["--batch-size", "0"],
        ["--lr", "0"],
        ["--lr", "nan"],
        ["--workers", "-1"],
        ["--image-size", "0", "32"],
        ["--device", "gpu"],
        ["--epochs", "1", "--iters", "5"],
    ],
)
def test_values_that_cannot_be_meant(words: list[str], fruit: Config) -> None:
    with pytest.raises(UserError, match=words[0]):
        apply(fruit, *words)


@pytest.mark.parametrize("name", LOGGERS)
def test_a_logger_is_added_or_says_what_to_install(name: str) -> None:
    cfg, (kind, package) = load(DETECTOR), LOGGERS[name]
    if find_spec(package):
        add_logger(cfg, name)
        assert cfg.visualizer.vis_backends[-1]["type"] == kind
    else:
        with pytest.raises(UserError, match=f"--log-to {name} needs .* pip install {package}$"):
            add_logger(cfg, name)
