"""What runs an ONNX file on a CPU: ONNX Runtime, or OpenVINO."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

Array = np.ndarray


class Engine(NamedTuple):
    """A loaded file."""

    run: Callable[[Array], Mapping[str, Array]]  # the input ``image`` to outputs by name
    facts: Mapping[str, str]  # the metadata
    outputs: tuple[str, ...]


def load_onnxruntime(path: str, threads: int) -> Engine:
    """Load a file into ONNX Runtime; ``threads`` of 0 are its choice."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = tuple(output.name for output in session.get_outputs())

    def run(image: Array) -> dict[str, Array]:
        return dict(zip(names, session.run(names, {"image": image}), strict=True))

    return Engine(run, session.get_modelmeta().custom_metadata_map, names)


def load_openvino(path: str, threads: int) -> Engine:
    """Load a file into OpenVINO; ``threads`` of 0 are its choice."""
    import openvino

    model = openvino.Core().read_model(path)
    # by itself it takes bfloat16 where a CPU has it, which moves scores by percents
    how = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.compile_model(model, "CPU", how)
    kept = dict(model.rt_info.items()).get("framework")  # ONNX's metadata
    facts = {name: str(each.value) for name, each in kept.items()} if kept is not None else {}
    names = tuple(output.any_name for output in compiled.outputs)

    def run(image: Array) -> dict[str, Array]:
        outputs = compiled({"image": image})
        return {name: outputs[name] for name in names}

    return Engine(run, facts, names)


ENGINES = {"onnxruntime": load_onnxruntime, "openvino": load_openvino}
