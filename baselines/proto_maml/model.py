"""Proto-MAML (Triantafillou et al. 2020) on a frozen pretrained backbone with an adapter."""

from pathlib import Path

from api import Learner, MetaLearner, Predictor

from autometa.learners.encoder import EncoderSpec
from autometa.learners.recipe import Recipe
from autometa.submission import AutoLearner, AutoPredictor, EpisodicMetaLearner


class MyMetaLearner(EpisodicMetaLearner, MetaLearner):
    bundle = Path(__file__).parent
    recipe = Recipe(
        learner="proto_maml",
        encoder=EncoderSpec(network="tf_efficientnet_lite0", px=128),
        options={"steps": 2},
    )


class MyLearner(AutoLearner, Learner):
    pass


class MyPredictor(AutoPredictor, Predictor):
    pass
