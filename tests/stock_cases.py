"""Stock tools that must take our configs: what each is given, prints and writes."""

from dataclasses import dataclass

OURS = {"agent_attention", "agent_toolkit", "mmengine_agent", "mmdet_agent", "mmseg_agent"}
BOTH = ("maintained", "upstream")

# tools of these names must be in CASES, all of them, but for those that are not for our models
LISTED = (
    *("browse_dataset", "analyze_logs", "confusion_matrix", "benchmark", "get_flops"),
    *("print_config", "train", "test"),
)
FOR_OTHERS = {"analysis_tools/mot/browse_dataset.py"}  # tracking

LAYOUT = "Layout of the output array img is incompatible with cv::Mat"


@dataclass(frozen=True)
class Case:
    """One call of a stock tool.

    Arguments are separated by blanks. Places in braces are filled in: {config} inherits from ours,
    {dumped} is in a work directory of tools/train.py, {checkpoint} and {log} are of that training,
    {predictions} of testing it, {zoo} is our folder of configs; {ade} reads the scenes as if they
    had ADE20K's classes, {long} tests 200 images.
    """

    tool: str  # below <package>/.mim/tools
    arguments: str
    prints: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()  # patterns, in the folder it runs in
    needs: str = ""  # a package that the tool imports and nothing requires
    fault: str = ""  # what it says where it fails, with stock configs too
    families: tuple[str, ...] = BOTH  # where this is so


DETECTION = (
    Case(
        "train.py",
        "{config} --work-dir out --auto-scale-lr",
        prints=("Epoch(train) [1][2/2]", "coco/segm_mAP: "),
        writes=("out/epoch_1.pth", "out/config.py"),
    ),
    Case(
        "test.py",
        "{config} {checkpoint} --work-dir out --out found.pkl --show-dir drawn "
        "--cfg-options test_evaluator.outfile_prefix=found",
        prints=("coco/bbox_mAP: ", "coco/segm_mAP: "),
        writes=(
            *("found.pkl", "out/*/drawn/000000000001.jpg"),
            *("found.bbox.json", "found.segm.json"),
        ),
    ),
    Case(
        "test.py",
        "{config} {checkpoint} --work-dir out --tta",
        fault="TTA of instance segmentation does not support now",
    ),
    Case("misc/print_config.py", "{zoo}/agent_pvt_maskrcnn.py", prints=("type='AgentPVT'",)),
    Case("misc/print_config.py", "{dumped} --save-path out/all.py", writes=("out/all.py",)),
    Case(
        "analysis_tools/get_flops.py",
        "{config} --num-images 1",
        prints=("Flops: ", "Params: "),
    ),
    Case(
        "analysis_tools/get_flops.py",
        "{zoo}/agent_pvt_maskrcnn.py",
        fault="No such file or directory: 'data/coco/annotations/instances_val2017.json'",
    ),
    Case(
        "analysis_tools/browse_dataset.py",
        "{dumped} --not-show --output-dir out",
        writes=("out/000000000001.jpg",),
    ),
    Case(
        "analysis_tools/benchmark.py",
        "{config} --task dataloader --max-iter 2 --num-warmup 1 --log-interval 1",
        prints=("Overall fps: ",),
    ),
    Case(
        "analysis_tools/benchmark.py",
        "{dumped} --task dataset --max-iter 2 --num-warmup 1 --log-interval 1",
        prints=("Overall fps: ",),
    ),
    Case(
        "analysis_tools/eval_metric.py",
        "{dumped} {predictions}",
        prints=("'coco/bbox_mAP': ", "'coco/segm_mAP': "),
    ),
    Case(
        "analysis_tools/confusion_matrix.py",
        "{dumped} {predictions} out",
        writes=("out/confusion_matrix.png",),
    ),
    Case(
        "analysis_tools/analyze_results.py",
        "{dumped} {predictions} out --topk 1",
        writes=("out/good/*.jpg", "out/bad/*.jpg"),
    ),
    Case(
        "analysis_tools/analyze_logs.py",
        "plot_curve {log} --keys loss --style fast --out curve.png",
        writes=("curve.png",),
        families=("maintained",),
    ),
    Case(
        "analysis_tools/analyze_logs.py",
        "plot_curve {log} --keys loss --out curve.png",
        fault="'dark' is not a valid package style",
        families=("maintained",),
    ),
    Case(
        "analysis_tools/analyze_logs.py",
        "plot_curve {log} --keys loss --out curve.png",
        writes=("curve.png",),
        needs="seaborn",
        families=("upstream",),
    ),
    Case(
        "analysis_tools/analyze_logs.py",
        "cal_train_time {log} --include-outliers",
        prints=("average iter time: ",),
        families=("maintained",),
    ),
)

SEGMENTATION = (
    Case(
        "train.py",
        "{config} --work-dir out",
        prints=("Iter(train) [2/2]", "mIoU: "),
        writes=("out/iter_2.pth", "out/config.py"),
    ),
    Case(
        "test.py",
        "{config} {checkpoint} --work-dir out --out labels --show-dir drawn "
        "--cfg-options default_hooks.visualization.interval=1",
        prints=("mIoU: ", "aAcc: "),
        writes=("labels/*_00000001.png", "drawn/vis_data/vis_image/*_00000001.jpg_*.png"),
    ),
    Case(
        "test.py",
        "{config} {checkpoint} --work-dir out --tta",
        fault="'ConfigDict' object has no attribute 'tta_pipeline'",
    ),
    Case(
        "misc/print_config.py",
        "{zoo}/agent_pvt_semantic_fpn.py",
        prints=("type='AgentPVT'",),
        writes=("example.py",),
    ),
    Case("misc/print_config.py", "{dumped} --graph", writes=("example-graph.txt",)),
    Case(
        "analysis_tools/get_flops.py",
        "{ade} --shape 64 64",
        prints=("Flops: ", "Params: "),
        families=("maintained",),
    ),
    Case(
        "analysis_tools/get_flops.py",
        "{dumped} --shape 64 64",
        fault='"input_shape" and "inputs" cannot be both set',
        families=("upstream",),
    ),
    Case(
        "analysis_tools/browse_dataset.py",
        "{dumped} --not-show --output-dir out",
        writes=("out/*_00000001.jpg",),
        families=("maintained",),
    ),
    Case(
        "analysis_tools/browse_dataset.py",
        "{dumped} --not-show --output-dir out",
        fault=LAYOUT,
        families=("upstream",),
    ),
    Case(
        "misc/browse_dataset.py",
        "{ade} --not-show --output-dir out",
        writes=("out/vis_data/vis_image/*_00000001.jpg_0.png",),
        families=("maintained",),
    ),
    Case(
        "misc/browse_dataset.py",
        "{ade} --not-show --output-dir out",
        fault=LAYOUT,
        families=("upstream",),
    ),
    Case(
        "misc/browse_dataset.py",
        "{dumped} --not-show --output-dir out",
        writes=("out/vis_data/vis_image/*_00000001.jpg_0.png",),
        families=("maintained",),
    ),
    Case(
        "analysis_tools/benchmark.py",
        "{long} {checkpoint} --work-dir out",
        prints=("Overall fps: ",),
        writes=("out/fps_*.json",),
    ),
    Case(
        "analysis_tools/confusion_matrix.py",
        "{dumped} {predictions} out",
        writes=("out/confusion_matrix.png",),
        families=("maintained",),
    ),
    Case(
        "analysis_tools/confusion_matrix.py",
        "{dumped} {predictions} out",
        fault="cannot reshape array",  # it shifts the labels once more
        families=("upstream",),
    ),
    Case(
        "analysis_tools/analyze_logs.py",
        "{log} --keys loss mIoU --out curve.png",
        writes=("curve.png",),
        needs="seaborn",
    ),
)
CASES = {"mmdet": DETECTION, "mmseg": SEGMENTATION}

# Predicts one image with a package's Inferencer and writes the names of classes that it used.
INFERENCER = """
import importlib, json, sys
from pathlib import Path

package, model, weights, image = sys.argv[1:]
name, options = {
    "mmdet": ("DetInferencer", {"no_save_pred": False}), "mmseg": ("MMSegInferencer", {})
}[package]
kind = getattr(importlib.import_module(f"{package}.apis"), name)
inferencer = kind(model=model, weights=weights, device="cpu")
inferencer(image, out_dir="out", **options)
meta = inferencer.visualizer.dataset_meta
Path("names.json").write_text(json.dumps({key: meta[key] for key in ("classes", "palette")}))
"""
