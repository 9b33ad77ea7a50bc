"""The numbers that label maps have for a segmentor's labels."""

from mmengine.config import Config

from mmengine_agent.predict.model import dataset_of


def map_numbers(cfg: Config, names: tuple[str, ...]) -> tuple[int, ...]:
    """Those that label maps have which the config trains on: from 1 with reduce_zero_label."""
    dataset = dataset_of(cfg)
    first = any(each.get("reduce_zero_label") for each in (dataset, *dataset.pipeline))
    return tuple(range(int(first), int(first) + len(names)))
