"""A memory that learns new letters during a test: accuracy by instance number.

    python examples/mann_instances.py [--quick] [--iterations N] [--data DIR] [--output PNG] [--seed N]

The protocol of Santoro et al. 2016, "Meta-learning with memory-augmented neural networks", section 3.1, on
the memory of autometa's learner `mann`. An episode shows images of five classes in random order, ten of each,
under labels that are shuffled again for every episode. The label of an image comes one step late: at step t the
network gets (x_t, y_{t-1}) and must predict y_t. When it sees a class for the first time it can only guess;
from the second time on it can know, if it has stored the image with the label that came after it. An LSTM without
a memory, trained in the same way, is shown for comparison.

DIR is a dataset in Meta-Album layout (default: the letters of examples/demo). A third of its classes is used only
for the test; turning images by 90° gives more classes to train on, as in the paper. Prints the accuracies at the
1st, 2nd, … 10th image of a class with 95% intervals over episodes, and draws them.
"""

from __future__ import annotations

import argparse
import csv
import time
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from autometa.learners.encoder import EncoderSpec, build_encoder
from autometa.learners.memory.mann import MANNOptions, MemoryNetwork
from ingestion import decode_image

WAYS, INSTANCES, META_BATCH = 5, 10, 16
RATE, WARM_UP = 3e-3, 20
ENCODER = EncoderSpec(network="conv4", px=16, channels=16, pools=3)
TEST_SHARE, TEST_EPISODES = 1 / 3, 400
DEFAULT, QUICK = 1000, 150
LETTERS = Path(__file__).parent / "demo" / "LETTERS"
NAMES = {True: "MANN", False: "LSTM alone"}
COLOURS = {True: "#2166ac", False: "#999999"}


@dataclass(frozen=True)
class Classes:
    """Images uint8 [classes, each, 3, px, px]; all classes have the same number."""

    images: torch.Tensor

    @classmethod
    def of(cls, folder: Path) -> Classes:
        """A dataset in Meta-Album layout, every class cut to the size of the smallest."""
        with (folder / "labels.csv").open(encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        groups: dict[str, list[np.ndarray]] = {}
        for row in rows:
            image = decode_image((folder / "images" / row["FILE_NAME"]).read_bytes(), ENCODER.px)
            groups.setdefault(row["CATEGORY"], []).append(image)
        each = min(len(group) for group in groups.values())
        return cls(torch.from_numpy(np.stack([np.stack(group[:each]) for group in groups.values()])))

    def split(self, generator: torch.Generator) -> tuple[Classes, Classes]:
        """Classes to train on, with their turned copies, and others for the test."""
        order = torch.randperm(len(self.images), generator=generator)
        tests = round(TEST_SHARE * len(order))
        kept = self.images[order[tests:]]
        turned = [kept.rot90(quarters, (-2, -1)) for quarters in range(4)]
        return Classes(torch.cat(turned)), Classes(self.images[order[:tests]])

    def episodes(self, n: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Images [n, t, 3, px, px] of WAYS classes in random order, INSTANCES of each, and labels [n, t]."""
        count, each = self.images.shape[:2]
        classes = torch.rand(n, count, generator=generator).argsort(1)[:, :WAYS]
        members = torch.rand(n, WAYS, each, generator=generator).argsort(2)[..., :INSTANCES]
        order = torch.rand(n, WAYS * INSTANCES, generator=generator).argsort(1)
        rows = (classes[..., None] * each + members).flatten(1).gather(1, order)
        return self.images.flatten(0, 1)[rows], order // INSTANCES


class OneStepLate(nn.Module):
    """An encoder, and a memory network or an LSTM like its controller, over (x_t, y_{t-1})."""

    def __init__(self, memory: bool) -> None:
        super().__init__()
        self.encoder = build_encoder(ENCODER)
        self.normalise = nn.BatchNorm1d(self.encoder.width, affine=False)
        inputs, options = self.encoder.width + WAYS, MANNOptions()
        self.memory = MemoryNetwork(inputs, options) if memory else None
        self.lstm = None if memory else nn.LSTM(inputs, options.controller, batch_first=True)
        self.answer = nn.Linear(self.memory.width if self.memory else options.controller, WAYS)

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Images [b, t, ...] and labels [b, t] → logits [b, t, WAYS]; those at t see no label from t on."""
        seen = self.normalise(self.encoder.vectors(images.flatten(0, 1))).unflatten(0, labels.shape)
        late = F.pad(F.one_hot(labels, WAYS).float(), (0, 0, 1, 0))[:, :-1]
        late = late * seen.shape[-1] ** 0.5  # as long as an image
        return self.answer(self._outputs(torch.cat([seen, late], dim=-1)))

    def _outputs(self, inputs: torch.Tensor) -> torch.Tensor:
        if self.lstm is not None:
            return self.lstm(inputs)[0]
        b, t = inputs.shape[:2]
        state, outputs = self.memory.start(torch.full((b,), t)), []
        for x in inputs.unbind(1):
            state = self.memory.step(x, state)
            outputs.append(self.memory.output(state))
        return torch.stack(outputs, dim=1)


def trained(memory: bool, classes: Classes, iterations: int, seed: int) -> OneStepLate:
    """A network after `iterations` of Adam on fresh episodes, with a rate that rises, then falls to zero."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = OneStepLate(memory)
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda done: min(1.0, (done + 1) / WARM_UP) * (1 - done / iterations)
    )
    for _ in range(iterations):
        images, labels = classes.episodes(META_BATCH, generator)
        optimizer.zero_grad()
        F.cross_entropy(network(images, labels).flatten(0, 1), labels.flatten()).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        schedule.step()
    return network.eval()


def instance_numbers(labels: torch.Tensor) -> torch.Tensor:
    """How many images of its class there were before each, [b, t]."""
    seen = F.one_hot(labels, WAYS).cumsum(1)
    return seen.gather(2, labels[..., None])[..., 0] - 1


def by_instance(network: OneStepLate, classes: Classes, episodes: int, seed: int) -> torch.Tensor:
    """Accuracies [episodes, INSTANCES] on new episodes."""
    generator, found = torch.Generator().manual_seed(seed), []
    for size in [min(50, episodes - start) for start in range(0, episodes, 50)]:
        images, labels = classes.episodes(size, generator)
        with torch.no_grad():
            hits = (network(images, labels).argmax(-1) == labels).float()
        places = instance_numbers(labels)
        found.append(torch.zeros(size, INSTANCES).scatter_add(1, places, hits) / WAYS)
    return torch.cat(found)


def interval(accuracies: torch.Tensor) -> torch.Tensor:
    """Half the width of the 95% interval of the mean over episodes, [INSTANCES]."""
    return 1.96 * accuracies.std(0) / len(accuracies) ** 0.5


def show(found: dict[bool, torch.Tensor]) -> None:
    """Print a table."""
    print(f"{'accuracy at instance':22}" + "".join(f"{number + 1:>14}" for number in range(INSTANCES)))
    for memory, accuracies in found.items():
        pairs = zip(accuracies.mean(0), interval(accuracies), strict=True)
        cells = (f"{100 * mean:.1f} ± {100 * half:.1f}%" for mean, half in pairs)
        print(f"{NAMES[memory]:22}" + "".join(f"{cell:>14}" for cell in cells))


def draw(found: dict[bool, torch.Tensor], output: Path) -> None:
    """Accuracies against instance numbers."""
    figure, axis = plt.subplots(figsize=(8, 5), layout="constrained")
    numbers = np.arange(1, INSTANCES + 1)
    for memory, accuracies in found.items():
        mean, half = 100 * accuracies.mean(0).numpy(), 100 * interval(accuracies).numpy()
        axis.plot(numbers, mean, marker="o", color=COLOURS[memory], lw=2, label=NAMES[memory])
        axis.fill_between(numbers, mean - half, mean + half, color=COLOURS[memory], alpha=0.2, lw=0)
    axis.axhline(100 / WAYS, color="#b2182b", ls=":", label="guessing")
    axis.set(xticks=numbers, ylim=(0, 100), xlabel="instance of the class", ylabel="accuracy (%)")
    axis.set_title("New letters, labels one step late: what the network remembers")
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(loc="lower right", frameon=False)
    figure.savefig(output, dpi=130)
    plt.close(figure)


def compared(folder: Path, iterations: int, seed: int) -> dict[bool, torch.Tensor]:
    """Train with and without a memory; accuracies by instance of both on classes held out."""
    fit, test = Classes.of(folder).split(torch.Generator().manual_seed(seed))
    return {
        memory: by_instance(trained(memory, fit, iterations, seed), test, TEST_EPISODES, seed + 1)
        for memory in NAMES
    }


def main() -> None:
    """Train, print, draw."""
    parser = argparse.ArgumentParser(description="A memory that learns letters during a test.")
    parser.add_argument("--iterations", type=int, default=DEFAULT, help="meta-batches (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} iterations")
    parser.add_argument("--data", type=Path, default=LETTERS, help="default: %(default)s")
    parser.add_argument(
        "--output", type=Path, default=Path("mann_instances.png"), help="default: %(default)s"
    )
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    start = time.perf_counter()
    found = compared(given.data, QUICK if given.quick else given.iterations, given.seed)
    show(found)
    draw(found, given.output)
    print(f"{given.output} written; {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
