"""Fine-tuning a body that was trained as a classifier."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field

from autometa.learners.base import Options
from autometa.learners.encoder import Encoder
from autometa.learners.episodes import InputEpisodes
from autometa.learners.gradient.tasks import Task, answer_each_task
from autometa.learners.transfer.classification import ClassifyingLearner
from autometa.learners.transfer.support_training import (
    BODY,
    Params,
    add_head,
    compute_logits,
    embed_in_parts,
    extract_body,
    select_params,
    train_on_support,
)


class FinetuneOptions(Options):
    """Options of `Finetune`, explained there."""

    scope: Literal["head", "last_blocks", "all"] = "head"
    steps: int = Field(default=100, ge=0)
    rate: float = Field(default=0.01, gt=0)
    body_rate: float = Field(default=1e-3, gt=0)


class Finetune(ClassifyingLearner):
    """The body is trained by plain classification; for every task a new linear head is trained on the support
    by `steps` of Adam with `rate` (the Baseline of Chen et al. 2019), and with it, at `body_rate`, the last
    blocks of the body or all of it, as `scope` says. Batch norm keeps its statistics.

    The head starts from zero, so that no order of the classes is special.
    """

    options_type = FinetuneOptions

    def __init__(self, encoder: Encoder, options: FinetuneOptions) -> None:
        super().__init__(encoder, options)
        self.options = options

    def forward(self, episodes: InputEpisodes) -> torch.Tensor:
        """Scores [b, q, n] of the queries."""
        return answer_each_task(self, episodes, Finetune.task_logits)

    def task_logits(self, task: Task) -> torch.Tensor:
        """Logits [q, ways] of the queries of one task."""
        options, encoder = self.options, self.encoder
        body = {} if options.scope == "head" else select_params(encoder, options.scope)
        fixed = embed_in_parts(encoder, {}, task.support) if options.scope == "head" else None

        def loss(params: Params) -> torch.Tensor:
            features = self._embed(params, task.support) if fixed is None else fixed
            return F.cross_entropy(compute_logits(params, features), task.support_labels)

        def rate(name: str) -> float:
            return options.body_rate if name.startswith(BODY) else options.rate

        params = train_on_support(loss, add_head(body, encoder.width, task), rate, options.steps)
        return compute_logits(params, self._embed(params, task.query))

    def _embed(self, params: Params, inputs: torch.Tensor) -> torch.Tensor:
        return embed_in_parts(self.encoder, extract_body(params), inputs)
