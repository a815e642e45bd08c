"""MAML++ (Antoniou et al. 2019) on a frozen pretrained backbone with an adapter."""

from pathlib import Path

from api import Learner, MetaLearner, Predictor

from autometa.learners.encoder import EncoderSpec
from autometa.learners.recipe import Recipe
from autometa.submission import AutoLearner, AutoPredictor, EpisodicMetaLearner


class MyMetaLearner(EpisodicMetaLearner, MetaLearner):
    bundle = Path(__file__).parent
    recipe = Recipe(
        learner="maml_plus_plus",
        encoder=EncoderSpec(network="tf_efficientnet_lite0", px=128),
        options={"rate": 1.0, "first_order_share": 0.0},
    )


class MyLearner(AutoLearner, Learner):
    pass


class MyPredictor(AutoPredictor, Predictor):
    pass
