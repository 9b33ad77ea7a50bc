"""The swap of a config's model, from flags to report and config."""

import copy
import hashlib
import json
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

from agent_attention.swap.families import explain_none, find_attentions
from agent_toolkit.swap.compare import Form, compare_locally, fused_softmax
from agent_toolkit.swap.report import State, to_markdown
from agent_toolkit.swap.search import Choice, Move, search
from agent_toolkit.swap.trial import Trial
from mmengine_agent.config_changes import write_inheriting
from mmengine_agent.errors import UserError
from mmengine_agent.files import write_file
from mmengine_agent.run.flags import guard_loading
from mmengine_agent.run.plain_flags import apply_plain_flags
from mmengine_agent.run.setup import build_runner, load_config
from mmengine_agent.run.test import CompleteWeightsHook, require_testable
from mmengine_agent.swap_backbone import import_adapter
from mmengine_agent.swapped import build_form
from mmengine_agent.task import task_of

SOFTMAX, FUSED, CHOSEN = "as it is", "fused softmax", "chosen layers"


def run(args: Namespace, candidates: Mapping[str, dict[str, Any]]) -> None:
    """Test the swap as flags ask, and write swap.json, swap.md and swapped.py.

    Args:
        args: flags of the command.
        candidates: settings of forms, by name.

    Raises:
        UserError: if something is wrong that the user can mend.
    """
    cfg = load_config(args, "test_dataloader")
    args.out = None  # of a test
    require_testable(cfg, args)
    if "type" not in (cfg.model.get("backbone") or ()):
        raise UserError("the config has no model.backbone whose attention could be swapped")
    apply_plain_flags(cfg, args, "test_dataloader")
    plain = copy.deepcopy(cfg)
    guard_loading(cfg)
    key = task_of(cfg).main_score(cfg).key
    runner = prepare(cfg, args)
    forms = {name: build_form(settings) for name, settings in candidates.items()}
    folder = Path(cfg.work_dir)
    facts = {"config": args.config, "checkpoint": args.checkpoint, "metric": key}
    facts |= {"images": len(runner.test_loop.dataloader.dataset)}
    state = State(folder / "swap.json", _fingerprint(plain, args, candidates), facts)
    trial = Trial(runner, key, args.batches)
    measure(trial, state, forms, args.rounds)
    if state["rows"][SOFTMAX]["score"] <= 0:
        print(f"{key} of the model as it is is 0, of which nothing can be lost: no search")
    elif not args.no_search:
        choice = find_choice(trial, state, forms, args.max_loss)
        if any(choice.values()):
            time_choice(trial, state, forms, choice, args.rounds)
            write_config(folder / "swapped.py", args, plain, candidates, choice)
        else:
            print("no layer can be swapped within --max-loss by these forms and grids: no config")
    write_file(folder / "swap.md", to_markdown(state))
    print(f"report: {folder / 'swap.md'}")


def prepare(cfg: Config, args: Namespace) -> Runner:
    """The runner of the test, with the checkpoint's weights."""
    own = {key: cfg.get(key) for key in ("load_from", "resume")}
    if cfg.model.backbone.get("init_cfg"):
        cfg.model.backbone.init_cfg = None  # the checkpoint brings all weights
    cfg.load_from, cfg.resume = args.checkpoint, False
    if args.images:
        cfg.test_dataloader.dataset.indices = args.images
    runner = build_runner(cfg, dumped=own)
    runner.register_hook(CompleteWeightsHook())
    runner.call_hook("before_run")
    runner.load_or_resume()
    dataset = runner.test_loop.dataloader.dataset
    for metric in runner.test_loop.evaluator.metrics:
        if args.images and getattr(metric, "img_ids", ()) is None:  # CocoMetric: of all images
            metric.img_ids = [dataset.get_data_info(i)["img_id"] for i in range(len(dataset))]
    return runner


def measure(trial: Trial, state: State, forms: Mapping[str, Form], rounds: int) -> None:
    """Errors of each layer; score, time and memory of each form in all layers."""
    found = find_attentions(trial.backbone)
    layers = [each.name for each in found if each.adapter is not None]
    if not layers:
        raise UserError(explain_none(found, asked=False))
    state["left_out"] = {each.name: each.why for each in found if each.adapter is None}
    if state.get("layers") is None:
        print(f"{len(layers)} layers, {len(forms)} forms: errors of each layer", flush=True)
        try:
            compared = compare_locally(trial.backbone, layers, forms, trial.show)
        except ValueError as error:  # a mask, cross-attention, a map of unknown size
            raise UserError(f"the backbone cannot be swapped: {error}") from error
        state["layers"] = {
            layer: {
                "tokens": list(each.tokens),
                "forms": {name: found._asdict() for name, found in each.figures().items()},
            }
            for layer, each in compared.items()
            if each.figures()  # it was called
        }
    fused: dict[str, Form | None] = dict.fromkeys(layers, fused_softmax)
    choices: dict[str, dict[str, Form | None]] = {SOFTMAX: {}, FUSED: fused}
    choices |= {name: dict.fromkeys(layers, form) for name, form in forms.items()}
    rows = state.setdefault("rows", {})
    for name, choice in choices.items():
        if name not in rows:
            score = rows[SOFTMAX]["score"] if name == FUSED else trial.score(choice)
            rows[name] = {"score": score, "memory": trial.memory(choice)}
            print(f"{name}: {trial.key} {score:.4g}", flush=True)
            state.save()
    if not all("seconds" in row for row in rows.values()):
        for name, seconds in trial.seconds(choices, rounds).items():
            rows[name]["seconds"] = seconds
        state.save()


def find_choice(trial: Trial, state: State, forms: Mapping[str, Form], max_loss: float) -> Choice:
    """The layers worth swapping, each with its form."""
    softmax = state["rows"][SOFTMAX]["score"]
    least = (1 - max_loss) * softmax
    print(f"search: {trial.key} of softmax {softmax:.4g}, at least {least:.4g}", flush=True)
    moves = [
        Move(layer, name, found["error"], found["cost"])
        for layer, figures in state["layers"].items()
        for name, found in figures["forms"].items()
        if name in forms
    ]
    scores = state.setdefault("scores", {})

    def score(choice: Mapping[str, str | None]) -> float:
        key = "; ".join(f"{layer}: {name}" for layer, name in sorted(choice.items()) if name)
        if key not in scores:
            scores[key] = trial.score({n: forms[f] for n, f in choice.items() if f})
            state.save()
        return float(scores[key])

    state["steps"], state["chosen"] = [], dict.fromkeys(state["layers"])
    for step in search(moves, score, least):
        print(step, flush=True)
        move = step.move
        state["steps"].append([move.layer, move.form, move.error, step.score, step.kept])
        state["chosen"] |= step.choice
    chosen: Choice = state["chosen"]
    state["chosen_score"] = score(chosen) if any(chosen.values()) else softmax
    return chosen


def time_choice(
    trial: Trial, state: State, forms: Mapping[str, Form], choice: Choice, rounds: int
) -> None:
    """Time and memory of the chosen layers, beside softmax in the same rounds."""
    chosen = {layer: forms[name] for layer, name in choice.items() if name}
    fused = dict.fromkeys(choice, fused_softmax)
    seconds = trial.seconds({SOFTMAX: {}, FUSED: fused, CHOSEN: chosen}, rounds)
    row = {"score": state["chosen_score"], "memory": trial.memory(chosen)}
    state["rows"][CHOSEN] = {**row, "seconds": seconds[CHOSEN], "fused": seconds[FUSED]}
    state.save()


def write_config(
    path: Path, args: Namespace, cfg: Config, candidates: Mapping[str, Any], choice: Choice
) -> None:
    """The config with the chosen layers swapped, from the trained weights on."""
    new = copy.deepcopy(cfg)
    for own in ("work_dir", "launcher"):
        new.pop(own, None)
    backbone = new.model.backbone.to_dict()
    backbone.pop("init_cfg", None)
    swaps = [
        {**candidates[name], "layers": [layer for layer, own in choice.items() if own == name]}
        for name in candidates
        if name in choice.values()
    ]
    new.model.backbone = {"type": "SwappedAttention", "backbone": backbone, "swaps": swaps}
    import_adapter(new, task_of(cfg).scope)
    new.load_from = str(Path(args.checkpoint).resolve())
    head = f"{args.config}\nwith the layers swapped that tools/swap.py has chosen."
    write_inheriting(path, args.config, new, head)
    print(f"config: {path}")


def _fingerprint(cfg: Config, args: Namespace, candidates: Mapping[str, Any]) -> str:
    """Of what scores depend on."""
    weights = Path(args.checkpoint).stat()
    text = json.dumps(cfg.to_dict(), default=str)
    facts = [text, *candidates, args.images, args.batches, weights.st_size, weights.st_mtime_ns]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
