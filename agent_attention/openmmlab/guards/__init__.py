"""Data and losses that misbehave while a run goes.

- ``checked_loading``: what decoders would let pass is found; ``bad_samples``: what becomes of it.
- ``bad_losses``: losses that are NaN or infinite.
- ``flags``: what ``tools/train.py`` offers, and puts into a config.
"""

from agent_attention.openmmlab.guards.bad_losses import BadLossesHook
from agent_attention.openmmlab.guards.bad_samples import BadSamplesHook
from agent_attention.openmmlab.guards.flags import add_guard_flags, guard_loading, set_guards

__all__ = [
    "BadLossesHook",
    "BadSamplesHook",
    "add_guard_flags",
    "guard_loading",
    "set_guards",
]
