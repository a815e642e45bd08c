"""The end of a search: which ensemble, by fresh episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autometa.core.errors import BudgetExhausted
from autometa.evaluation.accuracy import paired_gain
from autometa.evaluation.mixing import ShotTemperature, apply_temperature, average_batches, calibrate
from autometa.evaluation.validation_episodes import Answer
from autometa.planning.plan import SAVE_S
from autometa.search.best_outcomes import broad
from autometa.search.candidates import Outcome
from autometa.search.ensembles import WeightedCandidate, ensembles
from autometa.search.trials import Trials


@dataclass(frozen=True)
class FinalChoice:
    """Chooses out of what trials have found."""

    trials: Trials
    max_members: int

    def chosen(self, done: Sequence[Outcome]) -> tuple[list[WeightedCandidate], Answer]:
        """The broadest ensemble that there is time to ask about fresh episodes, or another that is better there by
        more than the paired standard error; and what it answers there."""
        forecast, validation_set = self.trials.forecast, self.trials.validation_set
        options = ensembles(done, validation_set.episodes, forecast.fits, forecast.image_s, self.max_members)
        found: list[tuple[list[WeightedCandidate], Answer]] = []
        for members in options:
            if not found or self._may_ask(members):
                try:
                    found.append((members, self._fresh_answer(members)))
                except BudgetExhausted as error:
                    self.trials.report(f"{len(members)} members are left out: {error}")
        told = ", ".join(f"{answer.percent()} with {_told(len(members))}" for members, answer in found)
        self.trials.report(f"fresh validation episodes: {told}")
        return preferred(found)

    def so_far(self) -> tuple[list[WeightedCandidate], Answer | None]:
        """The broad ensemble of what is known, and what it answers on the episodes for selection; nothing before the
        first outcome."""
        episodes = self.trials.validation_set.episodes
        wide = broad(self.trials.best_outcomes.heads, self.trials.forecast.fits)
        found = [(one.candidate, *calibrate(one.answer, episodes)) for one in wide if one.answer is not None]
        if not found:
            return [], None
        mixed = average_batches([voice for _, _, voice in found], [1.0] * len(found))
        return [(candidate, temperature, 1.0) for candidate, temperature, _ in found], episodes.measure(mixed)

    def calibrated(self, answer: Answer) -> tuple[ShotTemperature, Answer]:
        """The temperature by shots that fits the answer on fresh episodes best, and the answer at that. Its
        calibration error is measured where two numbers were fitted, of no account over thousands of queries."""
        fresh = self.trials.validation_set.fresh
        temperature = ShotTemperature.fit(answer.scores, fresh)
        scores = [temperature(*pair) for pair in zip(answer.scores, fresh.shots, strict=True)]
        return temperature, fresh.with_calibration(fresh.measure(scores))

    def _may_ask(self, members: list[WeightedCandidate]) -> bool:
        """Whether there is time to ask these members about fresh episodes, to save them, and to meta-test them."""
        forecast = self.trials.forecast
        asking_s = SAVE_S + sum(self.trials.fresh_s(candidate) for candidate, _, _ in members)
        reserve_s = forecast.meta_test_s(candidate.view for candidate, _, _ in members)
        limits = forecast.limits
        return limits.train.fits(asking_s) and limits.run.fits(asking_s + reserve_s)

    def _fresh_answer(self, members: list[WeightedCandidate]) -> Answer:
        """What an ensemble answers on fresh episodes."""
        calibrated = [
            apply_temperature(self.trials.fresh_scores(candidate), temperature)
            for candidate, temperature, _ in members
        ]
        return self.trials.validation_set.fresh.measure(
            average_batches(calibrated, [weight for _, _, weight in members])
        )


def _told(n: int) -> str:
    return f"{n} members" if n > 1 else "the best head"


def preferred(
    found: Sequence[tuple[list[WeightedCandidate], Answer]],
) -> tuple[list[WeightedCandidate], Answer]:
    """The last one, unless one before it is better by more than the paired standard error."""
    chosen, least = found[-1], 0.0
    for one in found[:-1]:
        gain, error = paired_gain(one[1].accuracies, found[-1][1].accuracies)
        if gain > max(error, least):
            chosen, least = one, gain
    return chosen
