"""A few-shot classifier with the conventions of scikit-learn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data

from autometa.classifier import persistence, rejection
from autometa.classifier.judging import judge_members
from autometa.classifier.labels import check_labels
from autometa.classifier.pictures import as_sequence, read_image, read_in_chunks
from autometa.classifier.rejection import replace_rejected
from autometa.classifier.shape_choice import check_options, suit_examples
from autometa.classifier.sources import Source, open_model, open_precomputed, open_preset
from autometa.classifier.spaces import Encoded, Support, concatenate

CHUNK = 128
"""Images that are encoded at a time."""
PRECOMPUTED = "precomputed"
NONE_OF_THESE = "none of these"


class FewShotClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Classify images from a few examples of each class, without training.

    ``fit`` encodes the examples with networks that are pretrained (or that `autometa fit` has adapted to a domain)
    and remembers them; two classes with one image each are enough.

    Parameters
    ----------
    model : str, path or None
        Folder of a model that `autometa fit` or a run has saved. None: pretrained backbones as they are.
    preset : str
        Without a model: `auto` (the cheapest three backbones whose weights are here), a preset (`tiny`, `small`,
        `base`, `large`), or names of backbones in timm, separated by commas.
    encoder : None or "precomputed"
        "precomputed": `X` are features, float [n, d], that somebody else has computed; `model` and `preset` have no
        effect.
    image_size : int or "auto"
        Pixels of prepared images. "auto": as the model was trained, else what suits the examples, 128 to 256.
    image_shape : "auto", "squeeze", "pad" or "crop"
        How images become square: squeezed, with bars, or cropped. "auto": as the model was trained, else squeezed
        unless held-out classes say otherwise of examples that are far from square.
    transductive : bool
        False: an answer depends on its image alone. True: the images of one call are answered together, which assumes
        that each class is among them about equally often; where that does not look so, each is answered alone.
    reject_below : float or None
        From 0 to 1: images that belong to one of the classes with a smaller probability than this are answered by
        `reject_label`. The probability is calibrated on classes that are held out from the examples, known and
        unknown images being equally likely; that needs two classes, and two images of some. Also after `fit`.
    reject_label : object
        What `predict` says of rejected images. None: "none of these" where classes are text, else -1.

    Attributes
    ----------
    classes_ : array [c]
        The classes, sorted.
    n_features_in_ : int
        With precomputed features: how many.

    Notes
    -----
    `X` are paths, Pillow images, uint8 arrays [n, h, w, 3] or [n, 3, h, w], or tensors (floats in 0 … 1). Nothing is
    random: the same examples give the same answers.
    """

    _serving: dict[str, Any] | None

    def __init__(  # noqa: PLR0913 - conventions of scikit-learn
        self,
        model: str | Path | None = None,
        *,
        preset: str = "auto",
        encoder: str | None = None,
        image_size: int | str = "auto",
        image_shape: Literal["auto", "squeeze", "pad", "crop"] = "auto",
        transductive: bool = False,
        reject_below: float | None = None,
        reject_label: Any = None,
    ) -> None:
        self.model = model
        self.preset = preset
        self.encoder = encoder
        self.image_size = image_size
        self.image_shape = image_shape
        self.transductive = transductive
        self.reject_below = reject_below
        self.reject_label = reject_label

    def fit(self, X: Any, y: Any) -> Self:
        """Remember examples: `X` images (or features), `y` labels [n] of any sortable kind. ValueError names what is
        wrong with them; a class needs one example, and there must be two classes."""
        self._check_parameters()
        return self.fit_on(self._open_source(), X, y)

    def fit_on(self, source: Source, X: Any, y: Any) -> Self:
        """As `fit`, with networks that are open already."""
        X, y = self._check_examples(X, y, reset=True)
        if len(classes := np.unique(y)) < 2:
            raise ValueError(f"fit needs two classes or more; there is one class: {classes[0]}")
        self._source, self._preparation, self._serving = source, source.preparation, None
        if self.encoder != PRECOMPUTED:
            self._preparation = suit_examples(source, X, y, self.image_size, self.image_shape)
        return self._remember(self._encode_all(X), y)

    def fit_encoded(self, source: Source, encoded: Encoded, y: Sequence[str]) -> Self:
        """As `fit_on`, of images that were prepared as `source` says and encoded in its space."""
        self._source, self._preparation, self._serving = source, source.preparation, None
        return self._remember(encoded, np.array(y))

    def add_examples(self, X: Any, y: Any) -> Self:
        """Remember further examples, also of new classes. Nothing is trained. ValueError as in `fit`."""
        check_is_fitted(self)
        X, y = self._check_examples(X, y, reset=False)
        before = self.classes_[self._support.labels.numpy()]
        encoded = concatenate([self._support.encoded, self._encode_all(X)])
        return self._remember(encoded, np.concatenate([before, y]))

    def _remember(self, encoded: Encoded, y: NDArray[Any]) -> Self:
        self.classes_, labels = np.unique(y, return_inverse=True)
        self._support = Support(encoded, torch.from_numpy(labels.astype(np.int64)), len(self.classes_))
        self._calibrate()
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probabilities float64 [n, c] of the classes in the order of `classes_`, given that it is one of them."""
        return self._answer(X)[0]

    def predict(self, X: Any) -> NDArray[Any]:
        """Labels [n]; `reject_label` where `reject_below` says so."""
        return self.classify(X)[0]

    def classify(self, X: Any) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """What `predict` and `predict_proba` say, at the price of one."""
        probabilities, known = self._answer(X)
        labels: NDArray[Any] = self.classes_[probabilities.argmax(1)]
        if known is None or self.reject_below is None:
            return labels, probabilities
        return replace_rejected(labels, known < self.reject_below, self._reject_label()), probabilities

    def read(self, X: Any) -> tuple[list[NDArray[np.uint8]], dict[int, str]]:
        """Images that can be read, as pixels uint8 [px, px, 3] that other methods take, and by place in `X` what is
        wrong with the others. ValueError where this was made of features."""
        check_is_fitted(self)
        if self._preparation is None:
            raise ValueError("the classifier was made of features (precomputed), so it reads no images")
        good, errors = [], {}
        for place, image in enumerate(as_sequence(X)):
            try:
                good.append(np.moveaxis(read_image(image, self._preparation), 0, -1))
            except ValueError as error:
                errors[place] = str(error)
        return good, errors

    def known_probability(self, X: Any) -> NDArray[np.float64]:
        """Probabilities float64 [n] of belonging to one of the classes; needs `reject_below`, see there."""
        known = self._answer(X)[1]
        if known is None:
            raise ValueError("known_probability needs reject_below: set_params(reject_below=0.5)")
        return known

    def embed(self, X: Any) -> NDArray[np.float32]:
        """Embeddings float32 [n, d] of images, of unit length unless precomputed: for search, plots, other
        classifiers. ValueError where a model has none."""
        check_is_fitted(self)
        encoded = self._encode_all(self._check_queries(X))
        features: NDArray[np.float32] = self._source.space.features(encoded).float().numpy()
        return features

    def summary(self) -> dict[str, Any]:
        """What answers, and what it remembers; for people and for JSON."""
        check_is_fitted(self)
        sizes = self._support.labels.bincount(minlength=self._support.ways).tolist()
        return {
            "encoder": self._source.about,
            "image_size": self._preparation.px if self._preparation else None,
            "image_shape": self._preparation.shape if self._preparation else None,
            "members": dict(self._source.space.members()),
            "examples": {str(name): size for name, size in zip(self.classes_, sizes, strict=True)},
            "transductive": self.transductive,
            "reject_below": self.reject_below,
        }

    def leaderboard(self) -> Any:
        """Accuracy of the classifier and of each of its views alone on the examples, each answered by the others
        (classes with one example cannot be): a DataFrame where pandas is installed, else a list of rows. ValueError
        where no class has two examples."""
        check_is_fitted(self)
        return judge_members(self._source.space, self._support)

    def save(self, folder: str | Path) -> None:
        """Write the classifier into `folder`: networks, examples as they were encoded, classes; JSON and safetensors.
        ValueError for classes that JSON cannot hold."""
        check_is_fitted(self)
        persistence.save(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> FewShotClassifier:
        """What `save` or `autometa fit` has written. ArtifactError where a file is missing or damaged."""
        return persistence.load(cls, Path(folder))

    def export(self, folder: str | Path, format: str = "onnx") -> Path:
        """Write preparation of pixels, networks and classes as one ONNX graph, `classifier.onnx`, and `classes.json`
        beside it; see `autometa.classifier.export`. The path of the graph. ValueError where that is not possible."""
        from autometa.classifier.export import export_onnx  # noqa: PLC0415 - needs another package

        check_is_fitted(self)
        if format != "onnx":
            raise ValueError(f"format = {format!r}: only `onnx` is there")
        return export_onnx(self, Path(folder))

    def _check_parameters(self) -> None:
        if self.encoder not in (None, PRECOMPUTED):
            raise ValueError(f"encoder = {self.encoder!r}: None or {PRECOMPUTED!r}")
        rejection.check_threshold(self.reject_below)
        check_options(self.image_size, self.image_shape)

    def _check_examples(self, X: Any, y: Any, *, reset: bool) -> tuple[Any, NDArray[Any]]:
        if self.encoder == PRECOMPUTED:
            X, y = validate_data(self, X, y, reset=reset, dtype=np.float64)
            return X, check_labels(y)
        X, y = as_sequence(X), check_labels(y)
        check_consistent_length(X, y)
        return X, y

    def _check_queries(self, X: Any) -> Any:
        if self.encoder == PRECOMPUTED:
            return validate_data(self, X, reset=False, dtype=np.float64)
        return as_sequence(X)

    def _open_source(self) -> Source:
        if self.encoder == PRECOMPUTED:
            return open_precomputed()
        return open_preset(self.preset) if self.model is None else open_model(Path(self.model))

    def _encode_all(self, X: Any) -> dict[str, torch.Tensor]:
        return concatenate(list(self._encode_in_chunks(X)))

    def _encode_in_chunks(self, X: Any) -> Iterator[Encoded]:
        chunks = [X] if self._preparation is None else read_in_chunks(X, self._preparation, CHUNK)
        left = len(X)
        for images in chunks:
            left -= len(images)
            yield self._source.space.encode(images, ahead=left)

    def _answer(self, X: Any) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Probabilities of the classes, and of belonging to one of them."""
        check_is_fitted(self)
        X = self._check_queries(X)
        rejection.check_threshold(self.reject_below)
        if self.reject_below is not None and self._rejection is None:
            self._calibrate()  # it was set after `fit`
        chunks = iter([self._encode_all(X)]) if self.transductive else self._encode_in_chunks(X)
        log_p, known = [], []
        for encoded in chunks:
            log_p.append(self._source.space.answer(self._support, encoded, transductive=self.transductive))
            if self._rejection is not None:
                known.append(self._rejection.known(self._similarity(encoded)))
        probabilities: NDArray[np.float64] = torch.cat(log_p).exp().numpy()
        return probabilities, np.concatenate(known) if known else None

    def _similarity(self, encoded: Encoded) -> torch.Tensor:
        support, features = self._support, self._source.space.features
        return rejection.nearest_similarity(
            features(support.encoded), support.labels, support.ways, features(encoded)
        )

    def _calibrate(self) -> None:
        self._rejection: rejection.Rejection | None = None
        if self.reject_below is not None:
            features = self._source.space.features(self._support.encoded)
            self._rejection = rejection.calibrate(features, self._support.labels, self._support.ways)

    def _reject_label(self) -> Any:
        if self.reject_label is not None:
            return self.reject_label
        return NONE_OF_THESE if self.classes_.dtype.kind in "UO" else -1

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = self.encoder == PRECOMPUTED
        tags.input_tags.string = self.encoder != PRECOMPUTED
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_support")

    def __getstate__(self) -> dict[str, Any]:
        return persistence.pack(self, super().__getstate__())

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(persistence.unpack(state))
