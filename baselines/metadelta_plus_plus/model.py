"""MetaDelta++ (winner of the MetaDL challenge of NeurIPS 2021): last stages tuned, optimal transport in each task."""

from pathlib import Path

from api import Learner, MetaLearner, Predictor

from autometa.learners.augmentation import Augmentation
from autometa.learners.encoder import EncoderSpec
from autometa.learners.recipe import Recipe
from autometa.learners.training_settings import TrainingSettings
from autometa.submission import AutoLearner, AutoPredictor, EpisodicMetaLearner


class MyMetaLearner(EpisodicMetaLearner, MetaLearner):
    bundle = Path(__file__).parent
    recipe = Recipe(
        learner="metadelta_plus_plus",
        options={"cosine": True},
        encoder=EncoderSpec(network="tf_efficientnet_lite0", px=128, trainable=2),
        augmentation=Augmentation(flip=True, shift=0.125),
        copies=3,
        training=TrainingSettings(
            optimizer="adam", learning_rate=1e-4, classifier_rate=1e-3, clip=5.0, patience=None
        ),
        validation_episodes=50,
    )


class MyLearner(AutoLearner, Learner):
    pass


class MyPredictor(AutoPredictor, Predictor):
    pass
