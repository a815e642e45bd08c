"""Four frozen views, fused, whitened in closed form and assigned by optimal transport, without any search."""

from pathlib import Path

from api import Learner, MetaLearner, Predictor

from autometa.submission import AutoLearner, AutoPredictor, SystemMetaLearner
from autometa.systems.fixed import FixedSystem


class MyMetaLearner(SystemMetaLearner, MetaLearner):
    bundle = Path(__file__).parent
    system = FixedSystem


class MyLearner(AutoLearner, Learner):
    pass


class MyPredictor(AutoPredictor, Predictor):
    pass
