"""What the optimisation-based learners share: a body and a head as functions of their parameters, adapted per
task by an inner loop."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import nn

from autometa.core.errors import DataError
from autometa.core.machine import CPU
from autometa.learners.base import EpisodicLearner, Options
from autometa.learners.encoder import Encoder, ScratchEncoder, get_device
from autometa.learners.episodes import InputEpisodes
from autometa.learners.gradient.batching import (
    GRAPH_TIMES,
    Accumulate,
    TaskMode,
    accumulate_in_loop,
    accumulate_on_cores,
    find_fastest,
    is_uniform,
)
from autometa.learners.gradient.inner_loop import Params, adapt_params, clip_gradients
from autometa.learners.gradient.norm import NormMode, forget_statistics, replace_batch_norm, set_phase
from autometa.learners.gradient.tasks import Task, answer_each_task, embed_with_params

BODY = "encoder."
HeadStart = Literal["shared", "prototypes", "zero", "learned"]
"""Where the head of a task starts. For any number of ways and the same for every order of the classes: `shared`,
one learned vector for all classes (UNICORN, Ye & Chao 2022); `zero`; `prototypes`, W = 2c and b = -|c|²
(Triantafillou et al. 2020). Under a softmax, `shared` answers as `zero` does, since what all classes have in common
cancels; from either, a first step moves the head alone. As in the papers, for tasks of `ways` classes only:
`learned`, a vector and a bias for each class (Finn et al. 2017)."""


class InnerLoop(Options):
    """`steps` gradient steps of `rate` on the support in training, `test_steps` outside; `head`: where the head of
    a task starts, a `learned` one for tasks of so many `ways`; `norm`: see `NormMode`, for networks trained from
    scratch; inner gradients count as constants if `first_order`; `clip`: their greatest joint length. Training
    takes `tasks` one after the other (`loop`), one on every core (`cores`), several at once (`vmap`), on a GPU as
    CUDA graphs (`graph`), whichever a first measurement finds fastest. On a GPU those at once take at most
    `task_memory` times the memory of one."""

    steps: int = Field(default=5, ge=1)
    test_steps: int = Field(default=5, ge=0)
    rate: float = Field(default=0.2, gt=0)
    head: HeadStart = "shared"
    ways: int | None = Field(default=None, ge=2)
    norm: NormMode = "transductive"
    first_order: bool = False
    clip: float | None = Field(default=10.0, gt=0)
    tasks: TaskMode | Literal["auto"] = "auto"
    task_memory: float | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _check_ways(self) -> Self:
        if (self.head == "learned") != (self.ways is not None):
            raise ValueError(
                f"head: {self.head} with ways: {self.ways}; a learned head, and no other, needs ways"
            )
        return self


class GradientLearner(EpisodicLearner):
    """Adapts to a task by gradient steps on its support, then answers its queries. `moves`: what the steps
    change."""

    options_type: ClassVar[type[Options]] = InnerLoop
    mixed_precision = False
    moves: Literal["all", "head", "body"] = "all"
    vectorised = True
    """Whether tasks may be taken all at once."""
    capturable = True
    """Whether a CUDA graph may hold what it does: nothing but parameters and episodes differs between steps."""

    def __init__(self, encoder: Encoder, options: InnerLoop) -> None:
        super().__init__(encoder, options)
        self.options = options
        self._fastest: Accumulate | None = None
        self._most_at_once: int | None = None
        if isinstance(encoder, ScratchEncoder):
            replace_batch_norm(encoder, options.norm, options.steps)
        modules: list[Any] = list(encoder.modules())
        for module in modules:
            if hasattr(module, "fused_attn"):  # torch has no second derivative of it
                module.fused_attn = False
        if options.head == "shared":
            self.start_weight = nn.Parameter(torch.zeros(encoder.width))
        if options.ways is not None:
            self.start_head = nn.Linear(encoder.width, options.ways)

    def forward(self, episodes: InputEpisodes) -> torch.Tensor:
        """Scores [b, q, n] of the queries; adapts by gradients whatever the caller's mode."""
        serial = self.training and self.options.norm == "per_step"  # tasks share running statistics
        return answer_each_task(self, episodes, type(self).task_logits, serial=serial)

    def task_logits(self, task: Task) -> torch.Tensor:
        """Logits [q, ways] of the queries of one task, after adaptation, without a graph."""
        steps = self.options.steps if self.training else self.options.test_steps
        with torch.no_grad():  # inner gradients are taken all the same, but no graph goes through the steps
            return self.answer(self.adapt(task, steps)[-1], task, steps)

    def accumulate(self, episodes: InputEpisodes) -> float:
        """Gradients of the mean query loss; the loss. A loop over tasks needs the memory of one."""
        if self.options.norm == "per_step":  # tasks share running statistics
            return accumulate_in_loop(self, episodes)
        on_cpu = episodes.query.device.type == CPU
        if self._is_short() and on_cpu:
            return accumulate_in_loop(self, episodes)
        if not self.vectorised or not is_uniform(episodes):
            one_by_one = accumulate_on_cores if on_cpu else accumulate_in_loop
            return one_by_one(self, episodes)
        if self._fastest is None:
            options = self.options
            self._fastest = find_fastest(self, episodes, options.tasks, options.task_memory)
        return self._fastest(self, episodes)

    def accumulate_alone(self, episodes: InputEpisodes) -> float:
        """One task on this thread."""
        return accumulate_in_loop(self, episodes)

    def limit_at_once(self, most: int, batch: int) -> None:
        """On a CPU tasks go one after the other where fewer have room than there are cores; a GPU goes by what it
        measures itself."""
        self._most_at_once = most

    def count_at_once(self, batch: int) -> int:
        """One for each core of a CPU, or one; on a GPU of NVIDIA as many as a graph is made of, where there are
        graphs. Without them it may take more at once, which only their first step tells."""
        options, device = self.options, get_device(self).type
        if options.norm == "per_step":
            return 1
        if device == CPU:
            return 1 if self._is_short() else min(torch.get_num_threads(), batch)
        graphs = (
            device == "cuda" and self.vectorised and self.capturable and options.tasks in ("auto", "graph")
        )
        return min(int(options.task_memory or GRAPH_TIMES), batch) if graphs else 1

    def _is_short(self) -> bool:
        """Whether fewer tasks have room than there are cores."""
        return self._most_at_once is not None and self._most_at_once < torch.get_num_threads()

    def task_loss(self, task: Task) -> torch.Tensor:
        """What one task adds to the loss: cross-entropy of its queries after adaptation."""
        steps = self.options.steps
        return F.cross_entropy(self.answer(self.adapt(task, steps)[-1], task, steps), task.query_labels)

    def answer(self, params: Params, task: Task, step: int) -> torch.Tensor:
        """Logits [q, ways] of the queries after so many steps; where the statistics of the support normalise
        them, those under the same parameters."""
        if self.options.norm == "support":
            self.features(params, task.support, step, recording=True)
        logits = self.logits(params, task.query, step, recording=False)
        forget_statistics(self.encoder)
        return logits

    def adapt(self, task: Task, steps: int) -> list[Params]:
        """Parameters before and after every inner step."""
        params = self.initial(task)
        moving = [name for name in params if self.is_moving(name)]

        def update(gradients: Params, step: int) -> Params:
            if self.first_order:
                gradients = {name: gradient.detach() for name, gradient in gradients.items()}
            if self.options.clip is not None:
                gradients = clip_gradients(gradients, self.options.clip)
            return {name: self.rate(name, step) * gradient for name, gradient in gradients.items()}

        return adapt_params(partial(self.support_loss, task=task), params, moving, update, steps)

    def support_loss(self, params: Params, step: int, *, task: Task) -> torch.Tensor:
        """What inner steps lower: cross-entropy of the support under these parameters."""
        logits = self.logits(params, task.support, step, recording=True)
        return F.cross_entropy(logits, task.support_labels)

    @property
    def first_order(self) -> bool:
        """Whether inner gradients count as constants; outside training no second-order gradient is needed."""
        return self.options.first_order or not self.training

    def initial(self, task: Task) -> Params:
        """All parameters before the first step: of the body, and a head for this many ways."""
        params: Params = {BODY + name: p for name, p in self.encoder.named_parameters() if p.requires_grad}
        n, width = task.ways, self.encoder.width
        if self.options.head == "prototypes":
            features = self.features(params, task.support, 0, recording=True)
            weight, bias = build_prototype_head(features, task.support_labels, n)
            return {**params, "head.weight": weight, "head.bias": bias}
        if self.options.head == "learned":
            if n != self.options.ways:
                raise DataError(
                    f"a task of {n} classes, but the head was made for ways: {self.options.ways}; leave `head` out "
                    "for tasks of any number"
                )
            return {**params, "head.weight": self.start_head.weight, "head.bias": self.start_head.bias}
        start = (
            self.start_weight
            if self.options.head == "shared"
            else torch.zeros(width, device=task.support.device)
        )
        bias = torch.zeros(n, device=task.support.device)
        return {**params, "head.weight": start.expand(n, width), "head.bias": bias}

    def is_moving(self, name: str) -> bool:
        """Whether inner steps change this parameter."""
        return self.moves == "all" or name.startswith(BODY) == (self.moves == "body")

    def rate(self, name: str, step: int) -> torch.Tensor | float:
        """Inner rate of a parameter in a step."""
        return self.options.rate

    def features(self, params: Params, inputs: torch.Tensor, step: int, *, recording: bool) -> torch.Tensor:
        """Embeddings [n, d] under these parameters."""
        set_phase(self.encoder, step, recording=recording)
        body = {name.removeprefix(BODY): p for name, p in params.items() if name.startswith(BODY)}
        return embed_with_params(self.encoder, body, inputs)

    def logits(self, params: Params, inputs: torch.Tensor, step: int, *, recording: bool) -> torch.Tensor:
        """Class logits [n, ways] under these parameters."""
        features = self.features(params, inputs, step, recording=recording)
        return F.linear(features, params["head.weight"], params["head.bias"])


def build_prototype_head(
    features: torch.Tensor, labels: torch.Tensor, ways: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """W = 2c [ways, d] and b = -|c|² [ways], c the class means of features [s, d] with labels [s] (Snell et al.
    2017)."""
    classes = torch.arange(ways, device=labels.device)
    one_hot = (labels[:, None] == classes).to(features.dtype)  # `F.one_hot` cannot be under `grad` and `vmap`
    means = one_hot.T @ features / one_hot.sum(0)[:, None]
    return 2 * means, -means.square().sum(1)
