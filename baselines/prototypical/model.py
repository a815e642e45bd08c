"""Pretrained embedding and nearest class centroid (Snell et al. 2017), without any meta-training."""

from api import Learner, MetaLearner

from autometa.artifact import Member
from autometa.learner import BackboneShelf, FittedLearner
from autometa.submission import AutoLearner

CENTROID = {"transform": "none", "metric": "euclidean"}
MEMBER = Member(backbone="tf_efficientnet_lite0", px=128, head="centroid", params=CENTROID)


class MyMetaLearner(MetaLearner):
    def meta_fit(self, meta_train_generator, meta_valid_generator):
        return MyLearner.of(FittedLearner((MEMBER,), BackboneShelf("cpu")))


class MyLearner(AutoLearner, Learner):
    pass
