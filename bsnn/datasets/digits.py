"""Handwritten digits that come with scikit-learn: 1,797 grey images of 8 x 8 (UCI optdigits, its test part)."""

from __future__ import annotations

from pathlib import Path

import torch

from bsnn import config
from bsnn.datasets.arrays import Source
from bsnn.datasets.base import evenly

TEST_PER_CLASS = 36  # of 174 to 183 images: a fifth


def read(settings: config.Data, cache: Path) -> Source:
    """All images, split once and for all: of each class 36, evenly spaced in the order of the file, are for testing.

    That leaves 1,437 for training and 360 for testing, without a random number. Pixels 0..16 become 0..255.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = torch.from_numpy(bunch.images).to(torch.int64)
    images = ((grey * 255 + 8) // 16).to(torch.uint8)[:, None]
    labels = torch.from_numpy(bunch.target).to(torch.int64)
    testing = torch.zeros(len(labels), dtype=torch.bool)
    for digit in range(10):
        members = torch.nonzero(labels == digit).flatten()
        testing[members[evenly(len(members), TEST_PER_CLASS)]] = True
    parts = {split: (images[chosen], labels[chosen]) for split, chosen in (("train", ~testing), ("test", testing))}
    return Source(parts, tuple(map(str, range(10))), None)
