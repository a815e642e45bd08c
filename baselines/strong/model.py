"""Four frozen views, a metric chosen for each, and the best three answer together, without any training."""

from pathlib import Path

from api import Learner, MetaLearner, Predictor

from autometa.submission import AutoLearner, AutoPredictor, SystemMetaLearner
from autometa.systems.strong import StrongSystem


class MyMetaLearner(SystemMetaLearner, MetaLearner):
    bundle = Path(__file__).parent
    system = StrongSystem


class MyLearner(AutoLearner, Learner):
    pass


class MyPredictor(AutoPredictor, Predictor):
    pass
