"""Training throughput: this project's loop against a plain DataLoader loop with the same network, batch and optimiser.

    python benchmarks/training.py [--images 1024] [--batch 128] [--workers 2]

VGG-15 in the CIFAR shape on random images, float32, crop and flip as in the recipe. The plain loop is what a tutorial
shows: torchvision transforms on PIL images in worker processes. Writes results/benchmarks/training.csv.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from bsnn import artifacts, config, provenance
from bsnn.datasets import DataSet
from bsnn.datasets.arrays import ArraySplit
from bsnn.networks.vgg import VGG
from bsnn.training import train

MEAN, STD = (0.5,) * 3, (0.25,) * 3


class Pictures(Dataset):
    """Images as a tutorial's data set holds them: decoded one by one, transformed one by one."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        self.images, self.labels = images, labels
        steps = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        self.transform = transforms.Compose([*steps, transforms.Normalize(MEAN, STD)])
        self.picture = transforms.ToPILImage()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.picture(self.images[index])), int(self.labels[index])


def plain(network: config.Network, data: DataSet, images: torch.Tensor, batch: int, workers: int, epochs: int) -> float:
    """Images per second of the last epoch."""
    module = VGG(network, (3, 32, 32), len(data.classes)).train()
    optimiser = torch.optim.SGD(module.parameters(), lr=1e-3, momentum=0.9)
    loader = DataLoader(Pictures(images, data.train.labels), batch, shuffle=True, num_workers=workers)
    for _ in range(epochs):
        begin = time.perf_counter()
        for pictures, labels in loader:
            optimiser.zero_grad()
            F.cross_entropy(module(pictures), labels).backward()
            optimiser.step()
        seconds = time.perf_counter() - begin
    return len(images) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--workers", type=int, default=2, help="of the plain loop")
    parser.add_argument("--epochs", type=int, default=2, help="the last one counts")
    args = parser.parse_args()
    base = config.load(Path(__file__).parents[1] / "config.yaml").experiments["cifar100"]
    sgd = {"name": "sgd", "lr": 1e-3, "momentum": 0.9, "weight_decay": 0.0}
    recipe = {"epochs": args.epochs, "batch_size": args.batch, "optimiser": sgd, "augment": {"crop": 4, "flip": True}}
    experiment = base.model_copy(update={"train": config.Train.model_validate(recipe)})
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (args.images, 3, 32, 32), generator=generator).to(torch.uint8)
    labels = torch.randint(0, 100, (args.images,), generator=generator)
    data = DataSet(
        tuple(map(str, range(100))), MEAN, STD, 32, ArraySplit(images, labels), ArraySplit(images[:1], labels[:1])
    )
    with tempfile.TemporaryDirectory() as folder:
        compute = config.Compute(accelerator="cpu")
        _, history, _ = train.fit(experiment, "full", 0, data, compute, Path(folder), None)
    rates = {
        "plain DataLoader loop": plain(base.network, data, images, args.batch, args.workers, args.epochs),
        "bsnn": float(history["images_per_second"].iloc[-1]),
    }
    frame = pd.DataFrame({"loop": list(rates), "images_per_second": list(rates.values())})
    frame["ratio"] = frame["images_per_second"] / frame["images_per_second"].iloc[0]
    machine = {"cpu": provenance.cpu_model(), "cores": provenance.cores(), "torch": torch.__version__}
    frame = frame.assign(network="vgg15-32", batch=args.batch, images=args.images, **machine)
    frame["revision"] = provenance.revision()
    artifacts.write_text("results/benchmarks/training.csv", frame.to_csv(index=False))
    print(frame[["loop", "images_per_second", "ratio"]].round(2).to_markdown(index=False))


if __name__ == "__main__":
    main()
