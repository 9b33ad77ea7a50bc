"""Carries out the lines of the Dockerfile in Debian trees, without Docker; prints a table.

    make image_steps
    make image_steps IMAGE_FLAGS="--build-arg MMCV_WHEEL=/wheels/FILE.whl --bind DIR:/wheels"

Needs Linux, root, debootstrap and the network. Every stage is an overlay on the one it begins with,
as Docker's layers are, in work_dirs/image; one that has been built of the same lines and files is
not built again. Variables PIP_* go along. The last steps run the image as `docker run` would.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from copy import deepcopy
from pathlib import Path

from dockerfile import ROOT, Copy, Stage, State, read_copy, read_stages, sent

OUT = ROOT / "work_dirs/image"
MIRROR = "http://deb.debian.org/debian"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # Docker's own
ALONE = "IMAGE_STEPS_ALONE"  # set in the process that has mounts of its own
WORK = OUT / "work"  # what is mounted as /work
SMALL = ("--workers", "0")
CONFIG = "/work/run/agent_pvt_semantic_fpn_demo.py"
USERS = ("1000", "12345")  # the image's own, and one that it does not know
TRIED = {  # by name: the arguments of `docker run IMAGE`
    "no argument": (),
    "configs": ("configs", "pvt"),
    "train": (
        *("train", "agent_pvt_semantic_fpn_demo", "--data-root", "data/ade", "--iters", "2"),
        *("--batch-size", "2", *SMALL, "--work-dir", "run"),
    ),
    "test": ("test", CONFIG, "run/iter_2.pth", *SMALL),
    "predict": ("predict", CONFIG, "run/iter_2.pth", "data/ade/images/validation"),
    "export": ("export", CONFIG, "run/iter_2.pth", "--out", "model.onnx"),
}


class Builder:
    """Trees of the stages, mounted while this process runs."""

    def __init__(self, given: dict[str, str], binds: dict[str, str]) -> None:
        self.given, self.binds = given, binds
        self.layers: dict[str, list[Path]] = {}  # by stage, the lowest first
        self.states: dict[str, State] = {}
        self.digests: dict[str, str] = {}

    def debian(self, image: str) -> None:
        """The tree of ``debian:NAME-slim``."""
        name = image.removeprefix("debian:").removesuffix("-slim")
        tree = OUT / f"debian-{name}"
        if not tree.exists():
            part = tree.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            run("debootstrap", "--variant=minbase", name, str(part), MIRROR)
            run("chroot", str(part), "apt-get", "clean")
            part.rename(tree)
        self.layers[image], self.digests[image] = [tree], image
        self.states[image] = State({"PATH": PATH, "HOME": "/root"})

    def build(self, stage: Stage) -> None:
        """The tree of a stage, unless it is there."""
        if stage.base not in self.layers:
            self.debian(stage.base)
        folder, state = OUT / stage.name, deepcopy(self.states[stage.base])
        digest, done = self.digest(stage), folder / "digest"
        self.digests[stage.name] = digest
        whole = done.is_file() and done.read_text() == digest
        if not whole:
            shutil.rmtree(folder, ignore_errors=True)
        for name in ("upper", "work", "tree"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self.layers[stage.name] = [*self.layers[stage.base], folder / "upper"]
        self.mount(stage.name)
        arguments: dict[str, str] = {}
        for step in stage.steps:
            state.apply(step, self.given, arguments)
            if whole:
                continue
            print(f"{stage.name}: {step.word} {step.text}", flush=True)
            if step.word == "WORKDIR":
                (folder / "tree" / step.text[1:]).mkdir(parents=True, exist_ok=True)
            elif step.word == "COPY":
                self.copy(read_copy(step.text), folder / "tree", state)
            elif step.word == "RUN":
                self.call(stage.name, state, ["/bin/sh", "-c", step.text], arguments)
        self.states[stage.name] = state
        done.write_text(digest)

    def digest(self, stage: Stage) -> str:
        """What a stage is made of: its base, its lines, the files and arguments they take."""
        found = hashlib.sha256(f"{self.digests[stage.base]} {stage.steps}".encode())
        for step in stage.steps:
            if step.word == "ARG":
                found.update(self.given.get(step.text.partition("=")[0], "").encode())
            elif step.word == "COPY":
                copy = read_copy(step.text)
                found.update(self.digests.get(copy.stage or "", "").encode())
                for path in files(copy) if copy.stage is None else ():
                    found.update(str(path).encode() + (ROOT / path).read_bytes())
        return found.hexdigest()

    def mount(self, stage: str) -> None:
        """Lay the layers of a stage over each other, with what a container has besides."""
        folder, *lower = OUT / stage, *self.layers[stage][-2::-1]
        options = f"lowerdir={':'.join(map(str, lower))},upperdir={folder}/upper"
        tree = str(folder / "tree")
        run("mount", "-t", "overlay", "-o", f"{options},workdir={folder}/work", "overlay", tree)
        run("mount", "-t", "proc", "proc", f"{tree}/proc")
        run("mount", "--rbind", "/dev", f"{tree}/dev")
        shutil.copy("/etc/resolv.conf", f"{tree}/etc/resolv.conf")
        for host, inside in self.binds.items():
            Path(tree, inside[1:]).mkdir(parents=True, exist_ok=True)
            run("mount", "--bind", "-o", "ro", host, tree + inside)

    def copy(self, copy: Copy, tree: Path, state: State) -> None:
        """COPY, of the repository or of another stage."""
        target = tree / os.path.join(state.folder, copy.target)[1:]
        if copy.stage is not None:
            (source,) = copy.sources
            run("cp", "-a", f"{OUT}/{copy.stage}/tree{source}", str(target))
            return
        for path in files(copy):
            inside = target / (path if copy.sources == (".",) else path.name)
            inside.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, inside)

    def call(
        self, stage: str, state: State, words: list[str], more: dict[str, str], user: str = ""
    ) -> float:
        """Seconds of a command in a stage's tree; ends the program if the command fails."""
        pip = {name: each for name, each in os.environ.items() if name.startswith("PIP_")}
        env = [f"{name}={each}" for name, each in {**pip, **state.env, **more}.items()]
        inside = ["env", "-i", "-C", state.folder, *env, *words]
        started = time.monotonic()
        who = user or state.user
        run("chroot", f"--userspec={who}:{who}", str(OUT / stage / "tree"), *inside)
        return time.monotonic() - started


def files(copy: Copy) -> list[Path]:
    """The files of the repository that COPY takes."""
    roots = sent() if copy.sources == (".",) else [*copy.sources]
    command = ["git", "ls-files", "-co", "--exclude-standard", "--", *roots]
    found = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [Path(line) for line in sorted(set(found.splitlines())) if (ROOT / line).is_file()]


def run(*command: str) -> None:
    """Run a command; exits with its code if it fails."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL)
    if done.returncode:
        print(f"error: exit code {done.returncode}: {' '.join(command)}", file=sys.stderr)
        sys.exit(done.returncode)


def megabytes(folder: Path) -> int:
    """What a layer takes on the disk."""
    out = subprocess.run(["du", "-sxm", folder], check=True, capture_output=True, text=True).stdout
    return int(out.split()[0])


def try_image(builder: Builder, name: str) -> dict[str, float]:
    """Run the image as its user and as one it does not know; seconds by name."""
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir()
    demo = ["tools/make_demo_data.py", "--train", "4", "--val", "2", "--size", "64"]
    run(sys.executable, str(ROOT / demo[0]), str(WORK / "data"), *demo[1:])
    run("mount", "--bind", str(WORK), str(OUT / name / "tree/work"))
    state, seconds = builder.states[name], {}
    for user in USERS:
        run("chown", "-R", user, str(WORK))
        run("mount", "-t", "tmpfs", "tmpfs", str(OUT / name / "tree/tmp"))  # of a new container
        for title, words in TRIED.items():
            command = [*state.entry, *(words or state.command)]
            print(f"user {user}: {' '.join(command)}", flush=True)
            seconds[f"{title}, user {user}"] = builder.call(name, state, command, {}, user)
    return seconds


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--build-arg", action="append", default=[], metavar="NAME=VALUE", help="as of Docker")
    text = "a folder of this machine that the trees see; also DIR alone"
    add("--bind", action="append", default=[], metavar="DIR:INSIDE", help=text)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if os.environ.get(ALONE) is None:  # mounts end with the process
        os.environ[ALONE] = "1"
        alone = ["unshare", "--mount", "--propagation", "private"]
        os.execvp(alone[0], [*alone, sys.executable, *sys.argv])
    pairs = [each.partition(":") for each in args.bind]
    builder = Builder(
        dict(each.split("=", 1) for each in args.build_arg),
        {host: inside or host for host, _, inside in pairs},
    )
    OUT.mkdir(parents=True, exist_ok=True)
    stages, seconds = read_stages(), {}
    for stage in stages:
        started = time.monotonic()
        builder.build(stage)
        seconds[f"stage {stage.name}"] = time.monotonic() - started
    seconds |= try_image(builder, stages[-1].name)
    print("", *(f"{name:<24}{took:8.1f} s" for name, took in seconds.items()), sep="\n")
    sizes = [megabytes(layer) for layer in builder.layers[stages[-1].name]]
    print(f"layers of the image: {' + '.join(map(str, sizes))} = {sum(sizes)} MB")


if __name__ == "__main__":
    main()
