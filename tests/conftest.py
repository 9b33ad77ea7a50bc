"""For every test."""

import os

# Before torch is imported: a pool of threads does not survive a fork, and tests fork.
os.environ["OMP_NUM_THREADS"] = "1"

import functools
import gc
import importlib
import random
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fork_server import share
from tool_runs import data, tested, trained  # noqa: F401  (fixtures of all files)

from agent_attention.compute.guard import using

# what takes longest begins, so that at the end no core waits for the other
LONGEST = (
    *("test_recorded.py", "test_export.py", "test_tools.py", "test_faults.py"),
    *("test_processes.py", "test_recipes.py", "test_stock_tools.py", "test_worker_ends.py"),
    *("test_classify.py", "test_resuming.py", "test_configs.py", "test_benchmarks.py"),
    *("test_every_backbone.py", "test_convert.py", "test_zoo.py", "test_swap_tool.py"),
)


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "where tests make their tensors: cuda tries what is not marked on_cpu on a GPU"
    parser.addoption("--device", default="cpu", help=text)


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        share()  # one fork server for all workers of pytest-xdist
    device = config.getoption("--device")
    if device != "cpu":
        torch.set_default_device(device)
        torch.backends.cudnn.allow_tf32 = False  # figures are those of full float32


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--device") != "cpu":
        items[:] = [item for item in items if not item.get_closest_marker("on_cpu")]
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


def pytest_collection_finish() -> None:
    """Keep what was imported out of later collections."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def seeded() -> None:
    """A test that passed once passes again: pipelines crop and flip, and layers initialise."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def metafiles_read_once() -> None:
    """For a config that inherits from mmdet or mmseg mmengine reads hundreds of them, a second."""
    if utils := sys.modules.get("mmengine.config.utils"):
        utils.load = functools.cache(utils.load)


@pytest.fixture(autouse=True, scope="session")
def plain_configs() -> None:
    """mmengine writes configs without laying them out, for which yapf takes up to a second."""
    if "mmengine" in sys.modules:
        for name in ("yapf.yapflib.yapf_api", "mmengine.config.config"):  # old ones import it early
            importlib.import_module(name).__dict__["FormatCode"] = lambda text, **_: (text, False)


@pytest.fixture(autouse=True, scope="session")
def datasets_without_collections() -> None:
    """mmengine collects garbage for each data set: among all that tests have left, a long time."""
    if module := sys.modules.get("mmengine.dataset.base_dataset"):
        module.__dict__["gc"] = SimpleNamespace(collect=lambda: 0)


@pytest.fixture(autouse=True)
def without_a_scope() -> Iterator[None]:
    """A run leaves its default scope behind, in which the next test would look for its classes."""
    yield
    if registry := sys.modules.get("mmengine.registry"):
        registry.DefaultScope._instance_dict.clear()


@pytest.fixture
def always_tiles() -> Iterator[None]:
    """Attention in tiles for small tensors too, where one fused call would be quicker."""
    with using(way="tiled"):
        yield
