"""Relation network (Sung et al. 2018) on the feature maps of a frozen pretrained backbone."""

from pathlib import Path

from api import Learner, MetaLearner, Predictor

from autometa.learners.encoder import EncoderSpec
from autometa.learners.recipe import Recipe
from autometa.submission import AutoLearner, AutoPredictor, EpisodicMetaLearner


class MyMetaLearner(EpisodicMetaLearner, MetaLearner):
    bundle = Path(__file__).parent
    recipe = Recipe(
        learner="relation",
        encoder=EncoderSpec(network="tf_efficientnet_lite0", px=128),
        options={"merge": "mean", "reduction": "normalised", "loss": "cross_entropy"},
    )


class MyLearner(AutoLearner, Learner):
    pass


class MyPredictor(AutoPredictor, Predictor):
    pass
