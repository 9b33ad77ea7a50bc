"""A trained model of a config on its test images: score, time and memory with layers swapped."""

import contextlib
import io
import logging
from collections.abc import Callable, Mapping
from itertools import islice
from statistics import median
from typing import Any

import torch
from mmengine.runner import Runner

from agent_toolkit.memory import peak_memory
from agent_toolkit.swap.compare import Form, now, swapped
from mmengine_agent.errors import UserError


class Trial:
    """Tests of one model, whose backbone has other attention each time.

    Args:
        runner: of the test; its weights are loaded.
        key: the metric that is the score.
        shown: batches on which time, memory and local errors are measured.
    """

    def __init__(self, runner: Runner, key: str, shown: int) -> None:
        self.model = runner.model.eval()
        self.backbone = self.model.backbone
        self.key = key
        self._loader = runner.test_loop.dataloader
        self._evaluator = runner.test_loop.evaluator
        self._logger = runner.logger
        self._shown = list(islice(self._loader, shown))

    def show(self) -> None:
        """Have the model see the first batches."""
        with torch.no_grad():
            for batch in self._shown:
                self.model.test_step(batch)

    def score(self, choice: Mapping[str, Form | None]) -> float:
        """The test's score with layers swapped.

        Raises:
            UserError: if the config's evaluator does not give it.
        """
        with swapped(self.backbone, choice), torch.no_grad(), self._silent():
            for batch in self._loader:
                self._evaluator.process(self.model.test_step(batch), batch)
            metrics = self._evaluator.evaluate(len(self._loader.dataset))
        if self.key not in metrics:
            known = ", ".join(metrics)
            raise UserError(f"the config's test_evaluator gives no {self.key}, but {known}")
        return float(metrics[self.key])

    def seconds(
        self, choices: Mapping[str, Mapping[str, Form | None]], rounds: int
    ) -> dict[str, float]:
        """Median seconds of a batch, by choice; they take turns after an untimed one each."""
        found: dict[str, list[float]] = {name: [] for name in choices}
        for turn in range(rounds + 1):
            for name, choice in choices.items():
                with swapped(self.backbone, choice):
                    start = now()
                    self.show()
                    if turn:
                        found[name].append((now() - start) / len(self._shown))
        return {name: median(each) for name, each in found.items()}

    def memory(self, choice: Mapping[str, Form | None]) -> int:
        """Bytes that the allocator held at most during the first batch, weights not counted."""
        device = next(self.model.parameters()).device
        first: Callable[[], Any] = lambda: self.model.test_step(self._shown[0])  # noqa: E731
        with swapped(self.backbone, choice), torch.no_grad():
            return peak_memory(first, device)

    @contextlib.contextmanager
    def _silent(self) -> Any:
        """What evaluators print is that of one test; here are many."""
        level = self._logger.level
        self._logger.setLevel(logging.WARNING)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                yield
        finally:
            self._logger.setLevel(level)
