"""Commands whose body stands in a script of ``tools/``."""

import importlib.util
from collections.abc import Callable

from mmengine_agent.commands import as_called
from mmengine_agent.config_names import FOLDER


def load_main(script: str) -> Callable[[], None]:
    """The ``main`` of a script, which is loaded without being run."""
    spec = importlib.util.spec_from_file_location(script, FOLDER / f"tools/{script}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.__doc__ = as_called(module.__doc__ or "")  # its help
    main: Callable[[], None] = module.main
    return main
