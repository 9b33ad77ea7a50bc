"""Lets mmengine's own checkpoints pass torch's safe unpickler.

Since torch 2.6 a checkpoint is unpickled safely: only classes on an allow-list are made. A run's
state holds mmengine's ``HistoryBuffer`` and NumPy arrays; mmengine 0.10.7 does not list them and so
cannot resume its own runs.
"""

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

_DTYPES = (np.float32, np.float64, np.int32, np.int64, np.uint32)


def allow_run_state() -> None:
    """Add what mmengine writes into a run's checkpoint to torch's allow-list."""
    array = np.empty(0).__reduce__()[0]  # numpy's array and scalar makers have moved between modules
    scalar = np.float64(0).__reduce__()[0]
    dtypes = [type(np.dtype(kind)) for kind in _DTYPES]
    # HistoryBuffer keeps its own methods, which pickle as getattr(HistoryBuffer, name); what getattr
    # gives cannot be called by the safe unpickler unless it is on the list itself.
    state = [HistoryBuffer, getattr, array, scalar, np.ndarray, np.dtype, *dtypes]
    torch.serialization.add_safe_globals(state)
