"""MetaDelta (Chen et al. 2021, winner of the MetaDL challenge of AAAI-21): several tuned backbones, one ensemble."""

from pathlib import Path

from api import Learner, MetaLearner, Predictor

from autometa.submission import AutoLearner, AutoPredictor, SystemMetaLearner
from autometa.systems.metadelta import MetaDeltaSystem


class MyMetaLearner(SystemMetaLearner, MetaLearner):
    bundle = Path(__file__).parent
    system = MetaDeltaSystem


class MyLearner(AutoLearner, Learner):
    pass


class MyPredictor(AutoPredictor, Predictor):
    pass
