"""Images turned by quarters; a class that is turned counts as another one (Vinyals et al. 2016, on Omniglot)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from autometa.data.images import Rows

ROTATIONS = 4
"""By 0, 90, 180 and 270°."""


def turn_images(images: NDArray[np.uint8], quarters: int) -> NDArray[np.uint8]:
    """Square images uint8 [n, 3, px, px] turned by so many times 90°, as a view."""
    return np.rot90(images, quarters, (2, 3))


def turn_classes(ids: Rows, quarters: int, classes: int) -> Rows:
    """What ids [n] of so many classes become where images are turned by so many times 90°, [n]."""
    return ids + quarters * classes


def repeat_classes(ids: Rows, turns: int, classes: int) -> Rows:
    """Ids [n] of so many classes → [turns · n]: those of the classes as they are, of all turned by 90°, …"""
    return np.concatenate([turn_classes(ids, quarters, classes) for quarters in range(turns)])
