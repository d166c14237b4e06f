"""Data sets: a registry, their files verified, their images as uint8.

`prepare` makes the verified artifact of a data set, `load` reads it; `Split.batches` yields uint8 images on the
device, where `augment` and `Normalise` then work on whole batches.
"""

from bsnn.datasets.base import DataSet, Split, evenly
from bsnn.datasets.registry import load, prepare
from bsnn.datasets.transforms import Normalise, augment

__all__ = ["DataSet", "Normalise", "Split", "augment", "evenly", "load", "prepare"]
