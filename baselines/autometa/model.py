"""autometa as a submission."""

from pathlib import Path

from api import Learner, MetaLearner, Predictor

from autometa.submission import AutoLearner, AutoMetaLearner, AutoPredictor


class MyMetaLearner(AutoMetaLearner, MetaLearner):
    bundle = Path(__file__).parent


class MyLearner(AutoLearner, Learner):
    pass


class MyPredictor(AutoPredictor, Predictor):
    pass
