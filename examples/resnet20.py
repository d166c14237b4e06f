"""ResNet-20 (He et al. 2016) on CIFAR-100, trained with plain PyTorch: a network of one's own (docs/own-networks.md).

    python examples/resnet20.py FOLDER --out resnet20.safetensors [--epochs 15] [--threads 2]
    python examples/resnet20.py FOLDER --out resnet20-binary.safetensors --binary --start resnet20.safetensors --lr 0.05

FOLDER holds CIFAR-100 as `train.bin` and `test.bin`, itself or in `cifar-100-binary/`, or `cifar-100-python/` as
torchvision.datasets.CIFAR100 downloads it. Training goes on where it stopped: after every epoch its state is kept in
a `.checkpoint` beside OUT. Beside OUT stands a card as well (`.json`): settings, accuracy, and the epochs' history.

`--binary` trains weights of +-alpha per output channel (XNOR-Net, Rastegari et al. 2016) in all but the first and the
last layer, and in the shortcuts as well. `build` makes the network; it is all that a user of the finished file needs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

MEAN, STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)  # of the training images' pixels in 0..1
PAD = 4  # pixels on each side, of which a random crop takes the image again


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut, with a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()
        self.shortcut = nn.Sequential()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, outputs, height / stride, width / stride] from [N, inputs, height, width]."""
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(y + self.shortcut(x))


class ResNet(nn.Module):
    """Three stages of blocks; the second and the third begin with stride 2."""

    def __init__(self, blocks: int, width: int, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        stages: list[nn.Module] = []
        inputs = width
        for stage in range(3):
            outputs = width * 2**stage
            for block in range(blocks):
                stages.append(Block(inputs, outputs, 2 if stage and not block else 1))
                inputs = outputs
        self.blocks = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, classes] of images [N, 3, height, width]."""
        x = self.blocks(self.relu(self.bn(self.conv(x))))
        return self.fc(torch.flatten(self.pool(x), 1))


def build(width: int = 16, blocks: int = 3, classes: int = 100) -> nn.Module:
    """The network; three blocks a stage make 20 layers."""
    return ResNet(blocks, width, classes)


class Binary(torch.autograd.Function):
    """alpha * sign, with the gradient of the weights where they lie within +-1."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        """alpha is the mean absolute weight of each filter."""
        ctx.save_for_backward(weight)
        alpha = weight.abs().flatten(1).mean(1).reshape(-1, 1, 1, 1)
        return torch.where(weight >= 0, alpha, -alpha)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Straight through, where the sign could still change."""
        (weight,) = ctx.saved_tensors
        return gradients[0] * (weight.abs() <= 1)


class BinaryWeight(nn.Module):
    """Parametrisation of a convolution's weight."""

    def forward(self, weight: Tensor) -> Tensor:
        """Binary weights from real ones."""
        return Binary.apply(weight)


def binarise(module: nn.Module) -> None:
    """Binary weights in every convolution but the first."""
    for part in [part for part in module.modules() if isinstance(part, nn.Conv2d)][1:]:
        parametrize.register_parametrization(part, "weight", BinaryWeight())


def plain(module: nn.Module) -> dict[str, Tensor]:
    """The finished network's tensors, as `build`'s network has them."""
    found = {name: tensor for name, tensor in module.state_dict().items() if "parametrizations" not in name}
    for name, part in module.named_modules():
        if parametrize.is_parametrized(part, "weight"):
            found[f"{name}.weight"] = part.weight
    return {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in found.items()}


def cifar100(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    """Images, uint8 [N, 3, 32, 32], and labels, int64 [N], of `train` or `test`."""
    for place in (folder, folder / "cifar-100-binary"):
        file = place / f"{part}.bin"
        if file.is_file():
            if file.stat().st_size % 3074:
                raise SystemExit(f"{file}: {file.stat().st_size} bytes are no whole records of 3074; copy it again")
            records = np.fromfile(file, np.uint8).reshape(-1, 3074)  # coarse label, fine label, 3 x 32 x 32
            labels = torch.from_numpy(records[:, 1].astype(np.int64))
            return torch.from_numpy(records[:, 2:].copy()).reshape(-1, 3, 32, 32), labels
    if (folder / "cifar-100-python").is_dir():
        from torchvision.datasets import CIFAR100

        data = CIFAR100(folder, train=part == "train")
        return torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(data.targets)
    raise SystemExit(f"{folder}: neither {part}.bin, nor cifar-100-binary/{part}.bin, nor cifar-100-python/")


def normalised(images: Tensor) -> Tensor:
    """float32 images from uint8, channels last in memory."""
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (MEAN, STD))
    return ((images.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


def augmented(padded: Tensor, generator: torch.Generator) -> Tensor:
    """Random crops of padded uint8 images [N, height, width, 3], half of them mirrored; uint8 [N, 3, 32, 32]."""
    count, inside = len(padded), torch.arange(32)
    top, left = torch.randint(0, 2 * PAD + 1, (2, count, 1), generator=generator)
    mirrored = torch.rand(count, 1, generator=generator) < 0.5
    columns = left + torch.where(mirrored, 31 - inside, inside)
    rows = top + inside
    return padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def rate(step: int, steps: int, args: argparse.Namespace) -> float:
    """Learning rate: up along a line in the first tenth, then down along half a cosine."""
    rising = max(1, steps // 10)
    if step < rising:
        return args.lr * (step + 1) / rising
    return args.lr * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def multiplies_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 natively; elsewhere it is emulated, and far slower than float32."""
    found = torch.cpu.get_capabilities()
    return any(bool(found.get(name)) for name in ("amx_bf16", "avx512_bf16", "bf16"))


@torch.no_grad()
def accuracy(module: nn.Module, images: Tensor, labels: Tensor, *, bf16: bool) -> float:
    """Fraction of images that are classified correctly."""
    module.eval()
    right = 0
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        for batch, label in zip(images.split(250), labels.split(250), strict=True):
            right += int((module(normalised(batch)).argmax(1) == label).sum())
    return right / len(labels)


def options(given: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("resnet20.safetensors"))
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--width", type=int, default=16, help="channels of the first stage")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=0.2, help="largest learning rate, of SGD with momentum 0.9")
    parser.add_argument("--decay", type=float, default=5e-4, help="weight decay; none for binary weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--binary", action="store_true", help="weights of +-alpha per output channel")
    parser.add_argument("--start", type=Path, help="a finished file to start from")
    parser.add_argument("--precision", choices=["auto", "bf16", "float32"], default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--images", type=int, help="only so many training images, to try things out")
    parser.add_argument("--test-images", type=int, help="only so many test images")
    return parser.parse_args(given)


def prepared(args: argparse.Namespace) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The network before its first epoch, and its optimiser."""
    torch.manual_seed(args.seed)
    module = build(args.width)
    if args.start is not None:
        module.load_state_dict(load_file(args.start))
    if args.binary:
        binarise(module)
    module.to(memory_format=torch.channels_last)
    latent = [tensor for name, tensor in module.named_parameters() if "parametrizations" in name]
    others = [tensor for name, tensor in module.named_parameters() if "parametrizations" not in name]
    groups = [{"params": others, "weight_decay": args.decay}, {"params": latent, "weight_decay": 0.0}]
    return module, torch.optim.SGD([group for group in groups if group["params"]], args.lr, 0.9, nesterov=True)


def train(args: argparse.Namespace) -> None:
    """Train, or go on; write the network and its card."""
    torch.set_num_threads(args.threads)
    bf16 = multiplies_bfloat16() if args.precision == "auto" else args.precision == "bf16"
    images, labels = (tensor[: args.images] for tensor in cifar100(args.folder, "train"))
    tests, test_labels = (tensor[: args.test_images] for tensor in cifar100(args.folder, "test"))
    names = ("epochs", "width", "batch", "lr", "decay", "seed", "binary", "images")
    settings = {name: getattr(args, name) for name in names} | {"bf16": bf16}
    module, optimiser = prepared(args)
    kept, history = args.out.with_suffix(".checkpoint"), []
    if kept.exists():
        state = torch.load(kept)
        if state["settings"] != settings:
            raise SystemExit(f"{kept} is of other settings, {state['settings']}; remove it, or go on with these")
        module.load_state_dict(state["module"])
        optimiser.load_state_dict(state["optimiser"])
        history = state["history"]
    padded = torch.tensor([round(255 * value) for value in MEAN], dtype=torch.uint8)
    padded = padded.expand(len(images), 32 + 2 * PAD, 32 + 2 * PAD, 3).clone()
    padded[:, PAD:-PAD, PAD:-PAD] = images.permute(0, 2, 3, 1)
    for epoch in range(len(history), args.epochs):
        history.append(one_epoch(epoch, args, module, optimiser, padded, labels, bf16=bf16))
        history[-1]["test_accuracy"] = accuracy(module, tests, test_labels, bf16=bf16)
        print(json.dumps(history[-1]), flush=True)
        state = {"module": module.state_dict(), "optimiser": optimiser.state_dict()}
        torch.save({**state, "settings": settings, "history": history}, kept.with_suffix(".partial"))
        kept.with_suffix(".partial").replace(kept)
    save_file(plain(module), args.out)
    card = {
        "network": "ResNet-20 with batch norm, 1x1 convolutions in shortcuts",
        "data": "CIFAR-100",
        "settings": settings,
        "mean": MEAN,
        "std": STD,
        "test_accuracy": accuracy(module, tests, test_labels, bf16=False),  # as it is used: in float32
        "test_images": len(tests),
        "parameters": sum(tensor.numel() for tensor in module.parameters()),
        "train_seconds": sum(one["seconds"] for one in history),
        "machine": {"torch": torch.__version__, "cpu": platform.machine(), "threads": args.threads},
        "sha256": hashlib.sha256(args.out.read_bytes()).hexdigest(),
        "history": history,
    }
    args.out.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")
    kept.unlink(missing_ok=True)
    print(f"{args.out}: {card['test_accuracy']:.2%} of {len(tests)} test images")


def one_epoch(
    epoch: int,
    args: argparse.Namespace,
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    padded: Tensor,
    labels: Tensor,
    *,
    bf16: bool,
) -> dict[str, float]:
    """Show every image once; each epoch has random numbers of its own, so that going on changes nothing."""
    generator = torch.Generator().manual_seed(1_000_003 * args.seed + epoch)
    order = torch.randperm(len(labels), generator=generator).split(args.batch)
    begin, total = time.perf_counter(), 0.0
    module.train()
    for number, index in enumerate(order):
        lr = rate(epoch * len(order) + number, args.epochs * len(order), args)
        for group in optimiser.param_groups:
            group["lr"] = lr
        x = normalised(augmented(padded[index], generator))
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = F.cross_entropy(module(x).float(), labels[index], label_smoothing=0.1)
        loss.backward()
        optimiser.step()
        total += float(loss.detach()) * len(index)
    seconds = time.perf_counter() - begin
    return {"epoch": epoch + 1, "lr": lr, "train_loss": total / len(labels), "seconds": round(seconds, 1)}


if __name__ == "__main__":
    train(options())
