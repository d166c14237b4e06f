"""Accuracy of a shipped network with plain PyTorch: none of this project's code, only its file format.

    python examples/evaluate_shipped.py results/reference/cifar100-half/networks/binary.safetensors FOLDER

FOLDER holds CIFAR-100's `test.bin` (binary version). In the file: `LAYER.weight`, float32 or bfloat16; or `LAYER.sign`,
one bit per weight (1 for +1, row-major, highest bit of a byte first), and `LAYER.alpha`, a factor per output channel.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn


def network(file: Path) -> tuple[nn.Sequential, Tensor, Tensor]:
    """The network, and the channel means and deviations that it was trained with, of pixels in 0..1."""
    card = json.loads(file.with_suffix(".json").read_text())
    with safe_open(file, "pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dictionary
        note = json.loads(opened.metadata()["bsnn"])["extra"]
    settings = card["network"]
    average = settings.get("pool", "average") == "average"
    pool = nn.AvgPool2d(2) if average else nn.MaxPool2d(2)
    before = settings.get("place", "before") == "before"
    layers: list[nn.Module] = []
    channels, size, convolutions = *note["input_shape"][:2], 0  # size: height and width
    for item in settings["features"]:
        if item == "P":
            layers.insert(len(layers) - 1 if before else len(layers), pool)  # before or after the ReLU
            size //= 2
            continue
        convolutions += 1
        layer = nn.Conv2d(channels, item, 3, padding=1, bias=False)
        layer.weight.data = weight(tensors, f"conv{convolutions}", layer.weight.shape)
        layers += [layer, nn.ReLU()]
        channels = item
    layers.append(nn.Flatten())
    units = channels * size * size
    widths = [*settings["hidden"], len(note["classes"])]
    for number, outputs in enumerate(widths, 1):
        linear = nn.Linear(units, outputs, bias=False)
        linear.weight.data = weight(tensors, f"fc{number}", linear.weight.shape)
        layers += [linear, nn.ReLU()]
        units = outputs
    return nn.Sequential(*layers[:-1]).eval(), torch.tensor(note["mean"]), torch.tensor(note["std"])


def weight(tensors: dict[str, Tensor], name: str, shape: torch.Size) -> Tensor:
    """Weights of a layer as float32."""
    if f"{name}.weight" in tensors:
        return tensors[f"{name}.weight"].float()
    bits = np.unpackbits(tensors[f"{name}.sign"].numpy(), count=shape.numel()).reshape(shape)
    alpha = tensors[f"{name}.alpha"].reshape(-1, *[1] * (len(shape) - 1))
    return alpha * (2 * torch.from_numpy(bits).float() - 1)


def main(file: Path, folder: Path) -> None:
    """Print the accuracy on CIFAR-100's test images, beside the card's."""
    module, mean, std = network(file)
    records = np.fromfile(folder / "test.bin", np.uint8).reshape(-1, 3074)  # coarse label, fine label, 3 x 32 x 32
    labels = torch.from_numpy(records[:, 1].astype(np.int64))
    images = torch.from_numpy(records[:, 2:]).reshape(-1, 3, 32, 32)
    right = 0
    with torch.no_grad():
        for batch, label in zip(images.split(250), labels.split(250), strict=True):
            x = (batch / 255 - mean.reshape(3, 1, 1)) / std.reshape(3, 1, 1)
            right += int((module(x).argmax(1) == label).sum())
    card = json.loads(file.with_suffix(".json").read_text())
    print(f"{right} of {len(labels)}: {100 * right / len(labels):.2f} %; card: {100 * card['test_accuracy']:.2f} %")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
