"""The LSTM meta-learner (Ravi & Larochelle 2017) on a frozen pretrained backbone with an adapter."""

from pathlib import Path

from api import Learner, MetaLearner, Predictor

from autometa.learners.encoder import EncoderSpec
from autometa.learners.recipe import Recipe
from autometa.learners.training_settings import TrainingSettings
from autometa.submission import AutoLearner, AutoPredictor, EpisodicMetaLearner


class MyMetaLearner(EpisodicMetaLearner, MetaLearner):
    bundle = Path(__file__).parent
    recipe = Recipe(
        learner="lstm_meta_learner",
        encoder=EncoderSpec(network="tf_efficientnet_lite0", px=128),
        options={"head": "prototypes"},
        training=TrainingSettings(learning_rate=3e-4),
    )


class MyLearner(AutoLearner, Learner):
    pass


class MyPredictor(AutoPredictor, Predictor):
    pass
