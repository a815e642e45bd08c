"""What a GPU brings: whether submissions see it, scores in short budgets, rates of engines, use of its memory.

    python benchmarks/gpu.py [--quick] [--json FILE] [--bundles NAMES|all] [--learn2learn DIR]
        [--parts sandboxes,embedding,demo,bundles,maml,memory]

Without a GPU nothing is measured, and the exit status is 0. It needs no network. With the default options it takes
about five minutes on one GPU; each of `--bundles` takes a minute more. Further parts are `cpu` (the demo
in 120 s without the GPU) and `chunks` (MAML with chunks of tasks of several sizes). `embedding` compares with plain
PyTorch at batch 16 in float32, and with a CUDA graph of the network alone on images that are already on the GPU. A
part that fails is told, the others go on, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from _arena_runs import Runner, Unit, datasets_in
from _learner_report import Report, Row, row

from autometa.backbones import Backbone, BackboneSpec, build_backbone
from autometa.backbones.architecture import create_model
from autometa.backbones.batches import FEW, PassMemory
from autometa.backbones.engines.half import Half, capture_cuda, to_half
from autometa.core.budget import UNLIMITED
from autometa.core.machine import Machine
from autometa.core.tensor_memory import measure_peak
from ingestion.access import Access, child_environment, readable_folders
from ingestion.gpu import ask_in_process
from ingestion.sandbox import choose_sandbox, confine
from run_local import BASELINES, DEMO

SANDBOXES = ("none", "landlock", "bubblewrap")
PLAIN_BATCH, BATCH = 16, 256
ROUNDS = 9
VIT = BackboneSpec("vit_small", "vit_small_patch16_224", 22.1, 224, "random weights", patch_px=16)
GPU_BUDGET = "2GB"
TASKS = 15
"""Of each dataset of the demo."""
GRACE_S = 30.0
"""A run that is so much later than its budget is ended."""
LIMIT_S = 240.0
"""Of another benchmark."""
MIB = 2**20

Run = Callable[[], Any]
Part = Callable[[], Iterator[Row]]


def measure_sandboxes() -> Iterator[Row]:
    """GPUs that a submission can use, under each sandbox that works here."""
    with tempfile.TemporaryDirectory() as folder:
        access = Access(readable_folders(), (), Path(folder))
        for sandbox in SANDBOXES:
            try:
                choose_sandbox(sandbox)  # type: ignore[arg-type]
            except Exception as error:  # noqa: BLE001 - a sandbox that is missing is a line, not an end
                print(f"gpu/sandbox/{sandbox}: not measured: {error}")
                continue
            inside = partial(confine, sandbox, access=access)
            answer = ask_in_process(inside, child_environment(Path(folder), {}))
            note = answer.trouble
            yield row(f"gpu/sandbox/{sandbox}", answer.gpus, "GPUs", torch.cuda.device_count(), note=note)


def median_s(run: Run) -> float:
    """Median seconds of a run that ends with a result on the CPU; the first one is not counted."""
    run()
    seconds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return median(seconds)


def graph_limit(backbone: Backbone, images: torch.Tensor) -> float:
    """Images per second of a CUDA graph of the network, on images that are on the GPU; its output stays there."""
    network = to_half(backbone.network, images.shape[-1], "cuda", torch.float16)
    resident = images.to("cuda").contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        replay, output = capture_cuda(lambda: network(resident))

    def run() -> None:
        replay()
        output[0, 0].item()

    return len(images) / median_s(run)


def measure_embedding() -> Iterator[Row]:
    """Rates of the engine that is chosen, and peaks of memory against what is planned with."""
    for name, px in (("tf_efficientnet_lite0", 128), ("tf_efficientnet_lite0", 224), ("vit_small", 224)):
        backbone = (
            Backbone(VIT, create_model(VIT), "cuda") if name == "vit_small" else build_backbone(name, "cuda")
        )
        images = torch.randint(0, 256, (BATCH, 3, px, px), dtype=torch.uint8)
        floats = backbone.network.normalise(images[:PLAIN_BATCH].to("cuda")).contiguous()

        @torch.inference_mode()
        def plain(model: Any = backbone.model, floats: torch.Tensor = floats) -> None:
            model(floats).cpu()

        plain_rate = PLAIN_BATCH / median_s(plain)
        backbone.prepare(images, px, n_images=10**6, budget=UNLIMITED)
        choice = backbone.choice(px)
        rate = BATCH / median_s(partial(backbone.embed_layers, images, px))
        limit = graph_limit(backbone, images)
        yield row(f"gpu/embedding/{name}/{px}", rate, "images/s", plain_rate, note=str(choice))
        yield row(f"gpu/embedding/{name}/{px}/limit", rate / limit, "share", 1.0)
        planned, peak = measure_pass(backbone, images, px)
        yield row(f"memory/{name}/{px}/{BATCH}/predicted_vs_measured", planned / MIB, "MiB", peak / MIB)


def measure_pass(
    backbone: Backbone, images: torch.Tensor, px: int, device: str = "cuda"
) -> tuple[float, int]:
    """Bytes of the pass of a batch in half precision without a graph, as predicted after one of a quarter of it, and
    as measured."""
    half = Half(backbone.network, px, device, dtype=torch.float16)
    passes = PassMemory(backbone.spec)
    few = images[: len(images) // FEW].to(device)
    half(few)  # what only the first pass takes
    passes.correct(len(few), px, "half", measure_peak(lambda: half(few), device))
    batch = images.to(device)
    half(batch)
    return len(batch) * passes.image_bytes(px, "half"), max(measure_peak(lambda: half(batch), device), 1)


def measure_run(bundle: str, budget_s: float, options: str, name: str, folder: Path) -> Iterator[Row]:
    """One run on the demo: accuracy, tasks without an answer (all of a run that was not scored), the first learner on
    disk, and the most GPU memory."""
    unit = Unit(BASELINES / bundle, DEMO, budget_s, 0)
    runner = Runner(folder / name, f"--tasks-per-dataset {TASKS} {options}".strip(), grace_s=GRACE_S)
    runner.folder.mkdir(parents=True, exist_ok=True)
    result = runner.run(unit)
    assert result is not None, "nobody stops it"
    tasks = TASKS * len(datasets_in(DEMO))
    accuracy = 100 * sum(result.accuracies) / tasks
    unanswered = result.unanswered if result.accuracies else tasks
    note = "; ".join(filter(None, [options, result.reason]))
    yield row(f"gpu/{name}", accuracy, "%", note=note)
    yield row(f"gpu/{name}/unanswered", unanswered, "tasks", tasks, note=note)
    if result.first_learner_s is not None:
        yield row(f"gpu/{name}/first_learner_s", result.first_learner_s, "s")
    if result.gpu_peak_bytes is not None:  # 0: the GPU was not used
        yield row(f"gpu/{name}/peak_memory", result.gpu_peak_bytes / 2**20, "MiB")


def measure_demo(folder: Path) -> Iterator[Row]:
    """autometa on the demo in 45 s, and in 90 s within a small budget of GPU memory."""
    yield from measure_run("autometa", 45.0, "", "demo/45", folder)
    yield from measure_run("autometa", 90.0, f"--gpu-memory-budget {GPU_BUDGET}", "demo/90", folder)


def measure_cpu(folder: Path) -> Iterator[Row]:
    """autometa on the demo in 120 s on the CPU."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    try:
        yield from measure_run("autometa", 120.0, "", "demo/120/cpu", folder)
    finally:
        os.environ.pop("CUDA_VISIBLE_DEVICES")
        if visible is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = visible


def measure_bundles(names: list[str], folder: Path) -> Iterator[Row]:
    """Tasks without an answer of each bundle at 60 s, one after the other."""
    for name in names:
        for one in measure_run(name, 60.0, "", f"bundle/{name}", folder):
            if one["name"].endswith("/unanswered"):
                yield one | {"name": f"gpu/bundle/{name}"}
            elif one["name"].endswith("/peak_memory"):
                yield one


def measure_maml(*options: str) -> Iterator[Row]:
    """Second-order MAML against the rivals that `benchmarks/maml.py` finds here."""
    for one in run_beside("maml.py", "--quick", "--second-order", *options):
        yield one | {"name": f"gpu/{one['name'].replace('/second_order', '')}"}


def measure_training_memory() -> Iterator[Row]:
    """Predicted and measured peaks of training steps."""
    yield from run_beside("training_memory.py", "--quick")


def run_beside(script: str, *options: str) -> list[Row]:
    """The rows of another benchmark, in a process of its own."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        path = Path(__file__).with_name(script)
        subprocess.run([sys.executable, path, *options, "--json", file.name], check=True, timeout=LIMIT_S)
        rows: list[Row] = json.loads(Path(file.name).read_text(encoding="utf-8"))
    return rows


def measure_parts(parts: Mapping[str, Part], names: Sequence[str], report: Report) -> list[str]:
    """Measure these parts one after the other, and write each row at once; those that failed."""
    failed = []
    for name in names:
        try:
            for one in parts[name]():
                report.add([one])
        except Exception:  # noqa: BLE001 - the time on the device is short: the other parts go on
            traceback.print_exc()
            print(f"{name}: failed")
            failed.append(name)
    return failed


def main() -> int:
    """Parse the command line, measure, write."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--quick", action="store_true", help="sandboxes and embedding only: under a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to this file")
    parser.add_argument("--parts", default="sandboxes,embedding,demo,bundles,maml,memory")
    parser.add_argument("--bundles", default="", help="names of baselines to run in 60 s each, or all")
    parser.add_argument("--learn2learn", metavar="DIR", help="as in maml.py")
    asked = parser.parse_args()
    if Machine.detect().device != "cuda":
        print("not measured: no GPU")
        if asked.json is not None:
            asked.json.write_text("[]\n", encoding="utf-8")
        return 0
    started_s = Machine.detect().warm_up()
    every = sorted(file.parent.name for file in BASELINES.glob("*/model.py"))
    names = every if asked.bundles == "all" else [name for name in asked.bundles.split(",") if name]
    report = Report(asked.json, torch.cuda.get_device_name(), resume=False)
    report.add([row("gpu/start", started_s, "s")])
    rival = ["--learn2learn", asked.learn2learn] if asked.learn2learn else []
    with tempfile.TemporaryDirectory(prefix="gpu-") as scratch:
        parts: dict[str, Part] = {
            "sandboxes": measure_sandboxes,
            "embedding": measure_embedding,
            "demo": partial(measure_demo, Path(scratch)),
            "bundles": partial(measure_bundles, names, Path(scratch)),
            "maml": partial(measure_maml, *rival),
            "memory": measure_training_memory,
            "cpu": partial(measure_cpu, Path(scratch)),
            "chunks": partial(measure_maml, "--chunks", *rival),
        }
        wanted = ["sandboxes", "embedding"] if asked.quick else asked.parts.split(",")
        if unknown := set(wanted) - set(parts):
            parser.error(f"--parts {unknown.pop()}: there are {', '.join(parts)}")
        return 1 if measure_parts(parts, wanted, report) else 0


if __name__ == "__main__":
    sys.exit(main())
