"""Recording a model as a graph with open sizes, and the files such a graph is kept in."""

import json
from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram
from torch.func import functional_call

from mmengine_agent.errors import UserError
from mmengine_agent.export.check import Load, Run
from mmengine_agent.export.modules import STRIDE, Exported
from mmengine_agent.export.operators import ONNX, in_plain_torch

# any shape that is padded in both directions, and whose maps differ in all sizes at every level
_EXAMPLE = (2, 3, 9 * STRIDE - 5, 13 * STRIDE - 7)
_PICTURE = (1, 283, 409, 3)
AXES = {0: "batch", 2: "height", 3: "width"}  # open ones of the image
PICTURE_AXES = {1: "height", 2: "width"}  # of one that is resized inside
_TORCH = "2.9"  # the first that leaves to a run what it cannot prove of open sizes

Facts = dict[str, str]


def record(model: Exported) -> ExportedProgram:
    """The model as a graph for any batch and any height and width from ``model.least`` on.

    All kinds of files are written from it.

    Raises:
        UserError: if the model cannot be recorded.
    """
    least = {"batch": 1, "height": model.least, "width": model.least}
    example, axes = torch.zeros(_EXAMPLE), AXES
    if getattr(model, "resize", None):
        least |= {"height": 2, "width": 2}
        example, axes = torch.zeros(_PICTURE, dtype=torch.uint8), PICTURE_AXES
    shapes = {"image": {axis: Dim(name, min=least[name]) for axis, name in axes.items()}}
    try:
        # the cache of fake tensors costs more than it saves: 6.6 s for 4.2 to 6.4 without it
        with torch.no_grad(), torch._dynamo.config.patch(fake_tensor_cache_enabled=False):
            return torch.export.export(
                model,
                (example,),
                dynamic_shapes=shapes,
                # torch cannot prove of padded sizes what holds for all of them; a run checks it
                prefer_deferred_runtime_asserts_over_guards=True,
            )
    except Exception as error:  # of many kinds: other packages' layers meet many parts of torch
        raise UserError(f"torch.export cannot record this model: {cause(error)}") from error


def cause(error: BaseException) -> str:
    """The first line of the error that began it."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def write_onnx(program: ExportedProgram, path: Path, facts: Facts, opset: int | None) -> None:
    """Write a graph and its weights as one ONNX file, with ``facts`` in its metadata.

    Raises:
        UserError: if ONNX lacks an operator of the graph, or the graph cannot have that opset.
    """
    spec = program.call_spec.out_spec
    assert spec is not None
    names = spec.unflatten(range(spec.num_leaves))  # the graph itself knows the order alone
    image = next(each for each in program.graph.nodes if each.name == "image")
    axes = PICTURE_AXES if image.meta["val"].dtype == torch.uint8 else AXES
    try:
        made = torch.onnx.export(
            program,
            input_names=["image"],
            output_names=list(names),
            dynamic_shapes={"image": axes},  # names alone: the graph itself knows the sizes
            opset_version=opset,
            custom_translation_table=dict(ONNX),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        raise UserError(f"ONNX cannot take this model: {cause(error)}") from error
    assert made is not None
    found = made.model.opset_imports[""]
    if opset not in (None, found):
        raise UserError(f"--opset {opset} cannot be had: the model needs opset {found}")
    made.model.metadata_props.update(facts)
    made.save(path)


def load_onnx(path: Path) -> Load:
    """An ONNX file, to run on the CPU."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors

    @cache  # making a session takes longer than running it
    def session(*values: tuple[str, float]) -> Run:
        file: Any = path
        if values:
            model, new = onnx.load(path), dict(values)
            for tensor in model.graph.initializer:
                if tensor.name in new:
                    value = np.asarray(new[tensor.name], np.float32)
                    tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
            file = model.SerializeToString()
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]

        def run(image: Tensor) -> dict[str, Tensor]:
            outputs = session.run(names, {"image": image.numpy()})
            return dict(zip(names, map(torch.from_numpy, outputs), strict=True))

        return run

    return lambda values: session(*values.items())


def write_pt2(program: ExportedProgram, path: Path, facts: Facts, opset: int | None) -> None:
    """Write a graph as torch's own file, with ``facts`` in its facts.json."""
    plain = in_plain_torch(program)
    with path.open("wb") as file:
        torch.export.save(plain, file, extra_files={"facts.json": json.dumps(facts)})


def load_pt2(path: Path) -> Load:
    """A file that ``write_pt2`` has written. It is a pickle, so read your own alone."""
    with path.open("rb") as file:
        module = torch.export.load(file).module()

    def load(values: Mapping[str, float]) -> Run:
        tensors = {name: torch.tensor(value) for name, value in values.items()}
        return partial(functional_call, module, tensors)

    return load


class Format(NamedTuple):
    """A kind of file: how it is written and run, and what it needs besides torch."""

    write: Callable[[ExportedProgram, Path, Facts, int | None], None]
    load: Callable[[Path], Load]
    packages: tuple[str, ...] = ()

    def require(self, run: bool) -> None:
        """Raise UserError if packages are missing, for writing and for running if it is wanted."""
        if torch.__version__ < _TORCH:
            raise UserError(f"exporting needs torch {_TORCH} or newer, this is {torch.__version__}")
        needed = [name for name in self.packages if run or name != "onnxruntime"]
        if missing := [name for name in needed if find_spec(name) is None]:
            install = f"pip install {' '.join(self.packages)}"
            raise UserError(f"ONNX needs {' and '.join(missing)}: {install}")


# of one recording they are written in this order: torch.onnx.export leaves symbols in it that are
# not bound, with which torch.export goes no further
FORMATS = {
    ".pt2": Format(write_pt2, load_pt2),
    ".onnx": Format(write_onnx, load_onnx, ("onnx", "onnxscript", "onnxruntime")),
}
