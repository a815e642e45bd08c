"""P>M>F (Hu et al. 2022): a pretrained prototypical network, fine-tuned on every task if that helps."""

from pathlib import Path

from api import Learner, MetaLearner, Predictor

from autometa.learners.encoder import EncoderSpec
from autometa.learners.recipe import Recipe
from autometa.submission import AutoLearner, AutoPredictor, EpisodicMetaLearner


class MyMetaLearner(EpisodicMetaLearner, MetaLearner):
    bundle = Path(__file__).parent
    recipe = Recipe(
        learner="pmf",
        encoder=EncoderSpec(network="tf_efficientnet_lite0", px=128),
    )


class MyLearner(AutoLearner, Learner):
    pass


class MyPredictor(AutoPredictor, Predictor):
    pass
