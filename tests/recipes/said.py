"""What tools may print: on stderr the lines that are meant, on stdout nothing after the last one.

Whatever is not listed here is a fault, so a new warning is seen when it comes.
"""

import re

# on stderr, whole lines
MEANT = (
    r"--resume: \S+",
    r"recording the model, which takes about a minute",
    r"no checkpoint: the weights are random",
    r"error: the backbone FLatten\w+ has no agents to draw",
    # torchrun, when a signal stops it
    r"W\d+ .* Received 15 death signal, shutting down workers",
    r"W\d+ .* Sending process \d+ closing signal SIGTERM",
    # the warning of torch below, on
    r"(grad|bucket_view)\.sizes\(\) = .*",
    r"  return Variable\._execution_engine\.run_backward\(.*",
    r"",
)
# Python's warnings: the beginning of a message, from other people's code, and why it stays.
THEIRS = (
    # mmseg's own configs bring these too
    "Default ``avg_non_ignore`` is False",
    "The draw is False, it means that the hook for visualization will not take effect",
    "`reduce_zero_label` will be deprecated",
    # true: the recipes ask for more workers than a small machine has cores
    "This DataLoader will create",
    # mmdet's mask head, of its own code; and pictures of what is predicted at the edge
    "To copy construct from a tensor, it is recommended",
    "Warning: The bbox is out of bounds",
    "Warning: The polygon is out of bounds",
    # mmdet, when it is imported; in the other runs the fork server has done that
    "faster_coco_eval is not installed",
    # said of two strides of dimensions of size 1, in which nothing is copied
    "Grad strides do not match bucket view strides",
    # upstream's mmseg, when it builds its own losses; upstream's mmengine, when it is imported
    "``build_loss`` would be deprecated soon",
    "pkg_resources is deprecated as an API",
    # of the stock Inferencers
    "Failed to add <class 'mmengine.visualization.vis_backend.LocalVisBackend'>",
)
# Warnings in the log, which is on stdout.
LOGGED = (
    # upstream's mmengine, which goes on by iterations
    "Advance dataloader ",
    # mmengine's CheckpointHook and mmseg's IoUMetric, as they come
    '"FileClient" will be deprecated in future',
    '"HardDiskBackend" is the alias of "LocalBackend"',
    "The prefix is not set in metric class IoUMetric",
    'Failed to search registry with scope "mmseg" in the "function" registry tree',
    'Failed to search registry with scope "mmdet" in the "function" registry tree',
    "Gradient accumulative may slightly decrease performance",
    "stopped by SIGTERM after iteration",
)
_NEVER = re.compile(r"Traceback|Exception ignored|Segmentation fault|terminate called|Error: ")
_BAR = re.compile(r" *\d+%\|[^|]*\| \d+/\d+ \[[^]]*\]")  # of tqdm; others print behind it
_WARNED = re.compile(r"(?P<place>\S+):\d+: \w*Warning: (?P<text>.*)")
_LOGGED = re.compile(r" - mmengine - (?:WARNING|ERROR|CRITICAL) - (?P<text>.*)")


def faults(out: str, err: str, last: str | None) -> list[str]:
    """The lines that should not be there.

    Args:
        out: what a tool printed on stdout.
        err: what it printed on stderr.
        last: a pattern found in the last line of stdout; None if any will do.
    """
    found = [line for line in f"{out}\n{err}".splitlines() if _NEVER.search(line)]
    for match in _LOGGED.finditer(out):
        if not match["text"].startswith(LOGGED):
            found.append(match["text"])
    lines = [line for line in out.splitlines() if line.strip()] or [""]
    if last is not None and not re.search(last, lines[-1]):
        found.append(f"the last line is {lines[-1]!r}, not {last!r}")
    return found + _unmeant(err)


def _unmeant(err: str) -> list[str]:
    """Lines of stderr that are neither meant nor another's warning."""
    found, quoted = [], False
    for line in re.split(r"[\r\n]+", _BAR.sub("\n", err)):
        warned = _WARNED.match(line)
        if warned:
            ours = not re.search("/site-packages/|/importlib/", warned["place"])
            theirs = not ours and warned["text"].startswith(THEIRS)
            found += [] if theirs else [line]
        elif not (quoted and line.startswith("  ")):  # the line of code that warned
            found += [] if any(re.fullmatch(each, line) for each in MEANT) else [line]
        quoted = warned is not None
    return found
