"""First-order MAML (Finn et al. 2017) on a frozen pretrained backbone with an adapter."""

from pathlib import Path

from api import Learner, MetaLearner, Predictor

from autometa.learners.encoder import EncoderSpec
from autometa.learners.recipe import Recipe
from autometa.learners.training_settings import TrainingSettings
from autometa.submission import AutoLearner, AutoPredictor, EpisodicMetaLearner


class MyMetaLearner(EpisodicMetaLearner, MetaLearner):
    bundle = Path(__file__).parent
    recipe = Recipe(
        learner="fomaml",
        encoder=EncoderSpec(network="tf_efficientnet_lite0", px=128),
        options={"rate": 0.1, "head": "prototypes"},
        training=TrainingSettings(learning_rate=3e-4),
    )


class MyLearner(AutoLearner, Learner):
    pass


class MyPredictor(AutoPredictor, Predictor):
    pass
