"""Runs that lose nothing: checkpoints that are whole, and training that goes on where it stopped.

``make_resumable`` switches it on for a config; ``tools/train.py`` does so for every one.

- ``checkpoint_hook``: checkpoints and the pointer to the newest, written whole or not at all.
- ``newest``: which checkpoint ``--resume`` takes.
- ``data_order``, ``random_state``, ``resume_hook``: a resumed run computes what an uninterrupted
  one does.
- ``explained``: a checkpoint of another run, told in one message.
- ``interrupts``: SIGTERM and SIGINT save, and stop.
"""

from mmengine_agent.hooks.checkpoint import POINTER, SafeCheckpointHook, point_at
from mmengine_agent.hooks.interrupt import RESUME_ME, InterruptHook
from mmengine_agent.resume.loops import ResumableEpochLoop
from mmengine_agent.resume.newest import newest_whole
from mmengine_agent.hooks.resume import ExactResumeHook
from mmengine_agent.resume.switch_on import make_resumable

__all__ = [
    "POINTER",
    "RESUME_ME",
    "ExactResumeHook",
    "InterruptHook",
    "ResumableEpochLoop",
    "SafeCheckpointHook",
    "make_resumable",
    "newest_whole",
    "point_at",
]
