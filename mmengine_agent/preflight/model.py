"""The model of a config: is it for as many classes as the data has?"""

from collections.abc import Iterator

from mmengine.config import Config

from mmengine_agent.class_counts import class_counts
from mmengine_agent.data.user_data import class_names, datasets
from mmengine_agent.errors import Problem
from mmengine_agent.task import task_of

# models that know their classes by words, number things and stuff apart, or follow objects
_FREE_CLASSES = {"language_model", "panoptic_fusion_head", "detector", "reid"}


def class_problems(cfg: Config) -> Iterator[Problem]:
    """Heads whose ``num_classes`` is not the number of the data set's classes."""
    named: dict[str, set[int]] = {"train": set(), "val": set()}  # by split, numbers of its sets
    for split, dataset in datasets(cfg):
        names = class_names(dataset, task_of(cfg).scope) if split in named else ()
        if names:
            named[split].add(len(names))
    if cfg.model.keys() & _FREE_CLASSES or any(len(each) > 1 for each in named.values()):
        return
    texts: dict[int, str] = {}
    for split, numbers in named.items():
        for number in numbers:
            texts.setdefault(number, f"{split}_dataloader names {number} classes")
    if len(texts) > 1:
        yield Problem(
            f"training and validation differ in their classes: {'; '.join(texts.values())}"
        )
    for head in class_counts(cfg.model):
        if len(texts) == 1 and head.number not in texts:
            ((wanted, text),) = texts.items()
            yield Problem(
                f"{head.path} is {head.number}, but {text}; --cfg-options {head.path}={wanted}, "
                "or --train-ann / --classes, which set all of them"
            )
