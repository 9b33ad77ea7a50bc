"""What differs between tasks: one object a task, so that nothing else asks which one it is.

A task is a class in a package of its own, an instance of it called ``TASK``, and a line in
``ADAPTERS``. What both tasks share stands in ``mmengine_agent`` and asks ``task_of(cfg)``.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, ClassVar, NamedTuple

from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from torch import nn

from mmengine_agent.config_walk import walk
from mmengine_agent.data.checked_loading import LabelCheck
from mmengine_agent.errors import Problem, UserError

# by ``default_scope`` of a config: the module with its ``TASK``; imported when a config needs it,
# since mmdet or mmseg may be installed alone
ADAPTERS = {"mmdet": "mmdet_agent.task", "mmseg": "mmseg_agent.task"}


def task_of(cfg: Config) -> "Task":
    """The task of a config, by its ``default_scope``; any other than those known is detection.

    The import of a task's package registers its backbones and the hooks of this toolkit.
    """
    scope = cfg.get("default_scope")
    task: Task = import_module(ADAPTERS.get(scope, ADAPTERS["mmdet"])).TASK
    return task


class Score(NamedTuple):
    """What a validation is judged by."""

    key: str  # of the metrics that mmengine logs; {metric} stands for the evaluator's own
    perfect: float
    metric: str = "bbox"  # of an evaluator that names none


class Task(ABC):
    """One task: its data, its scores, its models' inputs and outputs."""

    name: ClassVar[str]  # in evaluation.json
    scope: ClassVar[str]  # of its package's registries
    form: ClassVar[str]  # of its data, a name that tools/prepare_data.py knows
    layout: ClassVar[str]  # of its usual data set, with {root}
    known: ClassVar[Collection[str]]  # classes of data sets with that layout
    scores: ClassVar[Mapping[str, Score]]  # the main one of each type of evaluator
    flops_shape: ClassVar[tuple[int, int]]  # (H, W) of the published counts
    dump: ClassVar[str]  # the evaluator that writes predictions into a file

    # ---- data

    @abstractmethod
    def point_at(self, cfg: Config, flags: Any) -> dict[str, Any] | None:
        """Point loaders and evaluators of a config at a user's data, in place.

        Args:
            cfg: the config.
            flags: ``mmengine_agent.data.user_data.DataFlags``, not empty.

        Returns:
            The data sets' ``metainfo``, with 'classes', where they are no longer the config's own.

        Raises:
            UserError: if the annotations cannot be read.
        """

    @abstractmethod
    def data_problems(self, cfg: Config, splits: Sequence[str]) -> Iterator[Problem]:
        """What is wrong with the data of some splits."""

    @abstractmethod
    def label_numbers(self, cfg: Config, names: tuple[str, ...]) -> tuple[int, ...]:
        """The data set's own numbers of the model's labels, in the order of the labels."""

    def label_check(self, names: Sequence[str] | None) -> LabelCheck | None:
        """What looks at a label map's file, given the classes' names; None without such maps."""
        return None

    # ---- runs

    def hooks(self) -> list[Hook]:
        """Hooks that every run of the task has, next to those of its config."""
        return []

    @abstractmethod
    def record(self, metric: BaseMetric) -> Any:
        """The kind of ``report.record.Record`` that goes with a metric; None if none does."""

    @abstractmethod
    def show_predictions(self, cfg: Config, folder: str) -> None:
        """Have predictions drawn into a folder, in testing."""

    def main_score(self, cfg: Config) -> Score:
        """What validations of a config are judged by.

        Raises:
            UserError: if no score is known of its evaluators.
        """
        nodes = [node for _, node in walk(cfg.get("val_evaluator")) if "type" in node]
        for node in nodes:
            if node.type in self.scores:
                key, perfect, usual = self.scores[node.type]
                metric = node.get("metric") or node.get("iou_metrics") or usual
                names = [metric] if isinstance(metric, str) else metric
                main = "bbox" if "bbox" in names else names[0]
                if prefix := node.get("prefix"):
                    key = f"{prefix}/{key.rpartition('/')[2]}"
                return Score(key.format(metric=main), perfect, main)
        kinds = ", ".join(str(node.type) for node in nodes) or "nothing"
        raise UserError(
            f"no main score is known of the config's val_evaluator ({kinds}); known are those of "
            f"{', '.join(self.scores)}"
        )

    # ---- test-time augmentation

    @abstractmethod
    def tta_model(self, cfg: Config) -> dict[str, Any]:
        """The config of the wrapper that merges the predictions of all views of an image."""

    def tta_step(self, step: Any) -> Any:
        """A step of the test pipeline as it must be after views were made."""
        return step

    def before_tta(self, cfg: Config) -> None:  # noqa: B027  (there may be nothing)
        """Take out of a config, in place, what cannot be merged."""

    # ---- models

    def guard_model(self, model: Any) -> None:  # noqa: B027  (there may be nothing)
        """Have a model raise UserError for an input that it cannot take, where it is known."""

    @abstractmethod
    def writer(self, classes: Any, model: nn.Module, threshold: float) -> Any:
        """The ``predict.writer.Writer`` of a model's predictions.

        Args:
            classes: ``predict.classes.Classes`` of the model.
            model: the model.
            threshold: least score of an object.
        """

    def save_memory(self, model: Any) -> None:  # noqa: B027  (there may be nothing)
        """Have a model predict the same for ``writer`` in less memory, in place."""

    @abstractmethod
    def exported(self, model: nn.Module, prepare: nn.Module, outputs: str) -> Any:
        """A model as it is exported (``export.modules.Exported``).

        Args:
            model: mmdet's or mmseg's.
            prepare: from images to the batch that it takes.
            outputs: 'usual', 'raw', 'labels' or 'probabilities', by the flags of the tool.

        Raises:
            UserError: if the model, or such outputs of it, cannot be exported.
        """

    @abstractmethod
    def run_for_flops(self, model: Any, shape: tuple[int, int], device: str) -> None:
        """Run a model as the published counts do, on an image (H, W) of zeros.

        Args:
            model: on ``device``.
            shape: of the image.
            device: 'meta', or 'cpu' for a run with values.
        """
