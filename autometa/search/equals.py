"""Views that change no answer are left out at the end: they cost time in meta-test and bytes in the learner."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from autometa.backbones import View
from autometa.search.draft import PortfolioDraft
from autometa.search.evidence import FoldAnswer, Mixture
from autometa.search.weighing import compare_folds

LEAST_AGREEMENT = 0.995
"""Share of the queries of held-out classes that must have the same answer without the views that are left out."""


def leave_out_equals(draft: PortfolioDraft, goes_on: Callable[[], bool], note: Callable[[str], None]) -> None:
    """Take views out of a portfolio, the lightest first, as long as the answers on held-out classes stay those of the
    whole portfolio, and are not less accurate beyond noise. `goes_on()`: there is time to ask once more; `note` gets
    a line if views are taken out. Without folds, nothing is known, and all stay."""
    if not draft.bench.folds or len(draft.views) < 2 or not goes_on():
        return
    whole = draft.answer_all(_mix(draft, draft.views))
    left_out = []
    for view in reversed(draft.views):
        rest = [one for one in draft.bench.orientations if one != view]
        if all(one.variant for one in rest):
            continue  # these alone say nothing of classes that they have seen
        if not goes_on():
            break
        without = draft.answer_all(_mix(draft, rest))
        if _agree(draft, whole, without, draft.bench.folds_for(view)):
            draft.leave_out(view, without)
            left_out.append(str(view))
    if left_out:
        note(f"left out, as the answers stay the same without: {', '.join(left_out)}")


def _mix(draft: PortfolioDraft, views: Sequence[View]) -> Mixture:
    """The portfolio of these views, with the weights that they have without others."""
    return Mixture(draft.weights(some=views), draft.quick_modes, draft.refinement)


def _agree(
    draft: PortfolioDraft, whole: Sequence[FoldAnswer], without: Sequence[FoldAnswer], folds: range
) -> bool:
    """Whether two portfolios answer alike on the folds that count, and the second is as accurate."""
    pairs = [(whole[fold], without[fold]) for fold in folds]
    same = torch.cat([_compare(draft, *pair) for pair in pairs])
    modes = draft.quick_modes
    before, after = ([draft.evidence.measure(pair[place], modes) for pair in pairs] for place in (0, 1))
    gain, error = compare_folds(before, after)
    if gain is None or error is None:
        return False
    return float(same.float().mean()) >= LEAST_AGREEMENT and gain + error >= 0


def _compare(draft: PortfolioDraft, one: FoldAnswer, other: FoldAnswer) -> torch.Tensor:
    """Whether each query of a fold has the same answer in both, bool [n]."""
    queries = draft.bench.folds[one.fold].episodes.queries
    answers = [queries.rows(each.mix(draft.quick_modes)).argmax(1) for each in (one, other)]
    return answers[0] == answers[1]
