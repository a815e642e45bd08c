"""Four frozen views, fused, that answer in six modes with equal weights, without any search."""

from pathlib import Path

from api import Learner, MetaLearner, Predictor

from autometa.submission import AutoLearner, AutoPredictor, SystemMetaLearner
from autometa.systems.fixed import SixModesSystem


class MyMetaLearner(SystemMetaLearner, MetaLearner):
    bundle = Path(__file__).parent
    system = SixModesSystem


class MyLearner(AutoLearner, Learner):
    pass


class MyPredictor(AutoPredictor, Predictor):
    pass
