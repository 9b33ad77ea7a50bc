"""Runs a tool as the first process of a group of its own, as a shell does: TOOL, then its flags.

The warnings of mmseg about its own defaults are switched off.
"""

import os
import runpy
import sys
import warnings
from pathlib import Path

os.setpgrp()
warnings.simplefilter("ignore", UserWarning)
sys.argv.pop(0)
sys.path[0] = str(Path(sys.argv[0]).parent)
runpy.run_path(sys.argv[0], run_name="__main__")
