"""An epoch loop that can begin in the middle of an epoch."""

from collections.abc import Sequence

from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop


@LOOPS.register_module(force=True)
class ResumableEpochLoop(EpochBasedTrainLoop):
    """mmengine's loop; the batches of a resumed epoch are numbered, in the log, as in a whole one.

    Which batches those are is up to the data loader.
    """

    first_index = 0  # of the next epoch's first batch; set by ExactResumeHook

    def run_epoch(self) -> None:
        """Iterate the rest of one epoch."""
        super().run_epoch()
        self.first_index = 0

    def run_iter(self, idx: int, data_batch: Sequence[dict]) -> None:
        """Iterate one mini-batch, the ``idx``-th that the loader gave."""
        super().run_iter(idx + self.first_index, data_batch)
