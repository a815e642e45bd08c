"""A classifier as one ONNX graph: pixels go in, probabilities come out.

`classifier.onnx` takes `images` uint8 [n, 3, px, px], RGB, prepared as `classes.json` says (usually the whole image
resized to a square with Pillow's bilinear filter), and gives `probabilities` float32 [n, classes]. The graph resizes
for each network, normalises, embeds, applies metrics and compares with the classes. Resizing rounds as Pillow does up
to single steps of brightness, so that probabilities agree with `predict_proba` to about 0.01, not to the bit.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from autometa.backbones import Backbone, View
from autometa.classifier.portfolio_space import PortfolioSpace, name_of
from autometa.classifier.spaces import Support
from autometa.heads.class_means import zero_unless_finite
from autometa.heads.features import unit
from autometa.heads.modes import Key, Mode, find_mode
from autometa.model.inputs import list_inputs

if TYPE_CHECKING:
    from autometa.classifier.estimator import FewShotClassifier

GRAPH, CLASSES = "classifier.onnx", "classes.json"
OPSET = 17
LARGEST_BYTE = 255.0
SQUARES = {
    "squeeze": "resized to a square",
    "pad": "padded to a square and resized",
    "crop": "its middle square resized",
}


def export_onnx(classifier: FewShotClassifier, folder: Path) -> Path:
    """Write the graph and `classes.json` into `folder`; the path of the graph. ValueError where a learner cannot be
    written as a graph, or the package `onnx` is missing."""
    space = classifier._source.space
    if not isinstance(space, PortfolioSpace) or classifier._preparation is None:
        raise ValueError(
            f"{classifier._source.about}: only classifiers on a portfolio of backbones can be exported"
        )
    if classifier.transductive:
        raise ValueError("transductive = True: the graph answers each image alone; set it to False")
    _require_onnx()
    px, shape = classifier._preparation.px, classifier._preparation.shape
    graph = ClassifierGraph(space, classifier._support, px).eval()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / GRAPH
    example = torch.zeros(2, 3, px, px, dtype=torch.uint8)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # that the tracing exporter is old
            torch.onnx.export(
                graph,
                (example,),
                str(file),
                dynamo=False,
                input_names=["images"],
                output_names=["probabilities"],
                dynamic_axes={"images": {0: "n"}, "probabilities": {0: "n"}},
                opset_version=OPSET,
            )
    except (ImportError, RuntimeError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"export to ONNX failed ({why}); it needs the package onnx: pip install onnx"
        ) from error
    about = {
        "classes": [str(each) for each in classifier.classes_],
        "preparation": classifier._preparation.to_json(),
        "input": f"uint8 [n, 3, px, px], RGB, {SQUARES[shape]} with a bilinear filter with antialiasing",
        "output": "probabilities float32 [n, classes]",
    }
    (folder / CLASSES).write_text(json.dumps(about, indent=1, ensure_ascii=False), encoding="utf-8")
    return file


def _require_onnx() -> None:
    """ValueError where the package is missing, before any work and any folder is made."""
    if importlib.util.find_spec("onnx") is None:
        raise ValueError("export to ONNX needs the package onnx, which is not installed: pip install onnx")


class Resize(nn.Module):
    """Resizing as two products with matrices, rounded after each as Pillow does: exporters know no antialiasing."""

    def __init__(self, px_in: int, px_out: int, interpolation: str) -> None:
        super().__init__()
        eye = torch.eye(px_in)[None, None]
        weights = F.interpolate(eye, (px_out, px_in), mode=interpolation, antialias=True)[0, 0]
        self.register_buffer("weights", weights)
        self.same = px_in == px_out

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """float32 [n, 3, px_in, px_in] → float32 [n, 3, px_out, px_out], whole numbers from 0 to 255."""
        if self.same:
            return images
        weights = self.get_buffer("weights")
        wide = (images @ weights.T).round().clamp(0, LARGEST_BYTE)
        return (weights @ wide).round().clamp(0, LARGEST_BYTE)


class ViewGraph(nn.Module):
    """One network: pixels → all its layers side by side [n, d]."""

    def __init__(self, backbone: Backbone, view: View, px: int) -> None:
        super().__init__()
        size = backbone.input_px(view.px)
        self.resize = Resize(px, size, backbone.preprocessing.interpolation)
        self.network = copy.deepcopy(backbone.network.fit_to_size(size)).cpu()
        self.flip = view.flip

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """float32 [n, 3, px, px] → float32 [n, d]."""
        pixels = self.resize(images)
        output: torch.Tensor = self.network(pixels)
        return (output + self.network(pixels.flip(3))) / 2 if self.flip else output


class ClassifierGraph(nn.Module):
    """The views of a portfolio, its metrics, and the classes as `PortfolioSpace.answer` compares with them."""

    def __init__(self, space: PortfolioSpace, support: Support, px: int) -> None:
        super().__init__()
        self.portfolio, self.space, self.support = space.portfolio, space, support
        shelf = space.portfolio.shelf
        self.backbones = [shelf(view.backbone, view.variant) for view in space.portfolio.views]
        self.views = nn.ModuleList(
            ViewGraph(backbone, view, px)
            for backbone, view in zip(self.backbones, space.portfolio.views, strict=True)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [n, 3, px, px] → probabilities float32 [n, classes]."""
        portfolio = self.portfolio
        outputs = [view(images.float()) for view in self.views]
        rows = {key: self._join(outputs, key) for key in self.space.keys}
        weights = torch.tensor([mode.weight for mode in portfolio.modes])
        modes = [self._compare(find_mode(mode.name), rows) for mode in portfolio.modes]
        mixed = torch.einsum("mqn,m->qn", torch.stack(modes), weights / weights.sum()).log_softmax(-1)
        key, averaging = self.space.ridge_key, self.space.averaging
        ridge = (rows[key] @ self._ridge(key) / averaging.of_ridge).log_softmax(-1)
        mixed = ((ridge + (mixed / averaging.of_means).log_softmax(-1)) / 2).log_softmax(-1)
        shots = len(self.support.labels) / self.support.ways
        return (mixed / portfolio.temperature.at(shots)).softmax(-1)

    def _join(self, outputs: list[torch.Tensor], key: Key) -> torch.Tensor:
        """The views side by side, after the metrics of a key."""
        portfolio, joined = self.portfolio, []
        for view, backbone, output, weight in zip(
            portfolio.views, self.backbones, outputs, self.space.weights, strict=True
        ):
            inputs = list_inputs([view], key)
            moved = [portfolio.metrics[one](backbone.pick(output, one[0].layers)) for one in inputs]
            joined.append(torch.cat(moved, dim=1) * (weight / len(moved)) ** 0.5)
        return torch.cat(joined, dim=1)

    def _compare(self, mode: Mode, rows: dict[Key, torch.Tensor]) -> torch.Tensor:
        """Log-probabilities [n, classes] by the class means of a mode; see `without_transport`."""
        sharpness, scores = self.portfolio.refinement.sharpness, []
        for key in mode.keys:
            support = self.support.encoded[name_of(key)].float()
            centre = support.mean(0)
            means = self._one_hot.T @ unit(support - centre) / self._one_hot.sum(0)[:, None]
            query = F.normalize(rows[key] - centre, dim=-1)
            logits = sharpness * (2 * query @ means.T - means.square().sum(-1))
            scores.append(logits.log_softmax(-1))
        return torch.stack(scores).mean(0).log_softmax(-1)

    def _ridge(self, key: Key) -> torch.Tensor:
        """Weights [d, classes] of ridge regression onto centred labels; see `ridge_regression`."""
        support = zero_unless_finite(self.support.encoded[name_of(key)].float())
        system = support @ support.T + self.space.averaging.strength * torch.eye(len(support))
        weights: torch.Tensor = support.T @ torch.linalg.solve(system, self._one_hot - 1 / self.support.ways)
        return weights

    @property
    def _one_hot(self) -> torch.Tensor:
        return F.one_hot(self.support.labels, self.support.ways).float()
