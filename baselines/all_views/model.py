"""All views that the search could buy, fused, that answer in six modes with equal weights, without any search."""

from pathlib import Path

from api import Learner, MetaLearner, Predictor

from autometa.submission import AutoLearner, AutoPredictor, SystemMetaLearner
from autometa.systems.fixed import make_all_views_system


class MyMetaLearner(SystemMetaLearner, MetaLearner):
    bundle = Path(__file__).parent
    system = make_all_views_system


class MyLearner(AutoLearner, Learner):
    pass


class MyPredictor(AutoPredictor, Predictor):
    pass
