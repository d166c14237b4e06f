"""Modules as users write them: residual, depthwise, strided, functional; and random graphs of their parts."""

from __future__ import annotations

import random

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module with random statistics, factors (some negative) and shifts in its batch norms, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            size = part.num_features
            part.running_mean = torch.randn(size, generator=generator) * 0.2
            part.running_var = 0.5 + torch.rand(size, generator=generator)
            part.weight.data = 1 + 0.5 * torch.randn(size, generator=generator)
            part.bias.data = 0.3 * torch.randn(size, generator=generator)
    return module.eval()


def binarised(module: nn.Module) -> nn.Module:
    """The module with weights of +-alpha per output channel, except in the first and the last layer with weights."""
    weighted = [part for part in module.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    for part in weighted[1:-1]:
        weight = part.weight.data
        alpha = weight.abs().flatten(1).mean(1).reshape(-1, *[1] * (weight.dim() - 1))
        part.weight.data = torch.where(weight >= 0, alpha, -alpha)
    return module


def enlarging() -> nn.Module:
    """For images 3 x 8 x 8: a pool enlarges one place to 2 x 2 before a linear layer of signs, four of which meet."""
    layers = [nn.Conv2d(3, 4, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 6)]
    return binarised(nn.Sequential(*layers, nn.ReLU(), nn.Linear(6, 3)).eval())


class Block(nn.Module):
    """Basic block of a ResNet, with a convolution in the shortcut where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class ResNet(nn.Module):
    """ResNet for CIFAR (He et al. 2016): three stages of `blocks` blocks; 3 blocks make ResNet-20."""

    def __init__(self, blocks: int = 3, width: int = 16, classes: int = 10) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        stages, inputs = [], width
        for stage in range(3):
            for block in range(blocks):
                outputs = width * 2**stage
                stages.append(Block(inputs, outputs, 2 if stage and not block else 1))
                inputs = outputs
        self.blocks = nn.Sequential(*stages)
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.bn(self.conv(x))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Depthwise(nn.Module):
    """Depthwise and pointwise convolutions, each with batch norm and ReLU (as MobileNet, with ReLU for ReLU6)."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()

        def block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
                nn.BatchNorm2d(inputs),
                nn.ReLU(inplace=True),
                nn.Conv2d(inputs, outputs, 1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            )

        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.blocks = nn.Sequential(block(8, 16, 1), block(16, 32, 2), block(32, 32, 1))
        self.fc = nn.Linear(32, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.blocks(self.stem(x)).mean((2, 3)))


class Strided(nn.Module):
    """Strides, 5x5 kernels, dilation, biases, pools with padding, two linear layers, dropout."""

    def __init__(self, pool: nn.Module | None = None, classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 12, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(12, 16, (5, 3), padding="same", dilation=(1, 2)),
            nn.BatchNorm2d(16),
            nn.AvgPool2d(2),
            nn.ReLU(),
            pool or nn.MaxPool2d(3, 2, 1),
            nn.Dropout(0.1),
        )
        self.hidden = nn.Linear(16 * 2 * 2, 24)
        self.norm = nn.BatchNorm1d(24)
        self.last = nn.Linear(24, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x).view(x.size(0), -1)
        return self.last(torch.relu(self.norm(self.hidden(x))))


class RandomNet(nn.Module):
    """A random graph: convolutions of any kind, batch norm, pools, residual sums, linear layers."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random = random.Random(seed)
        self.channels = self.random.choice([2, 4, 6])
        self.size = self.random.randint(6, 11)
        self.parts = nn.ModuleList()
        self.stages: list[str] = []
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self._convolution(3, self.channels)
            for _ in range(self.random.randint(1, 4)):
                stage = self.random.choice(["plain", "residual", "branch", "average", "max", "early"])
                self.stages.append(stage)
                wide = self.channels * self.random.choice([1, 1, 2])
                if stage in ("plain", "early"):
                    self._convolution(self.channels, wide)
                    self.channels = wide
                elif stage == "residual":
                    self._convolution(self.channels, self.channels, keep=True)
                elif stage == "branch":
                    self._convolution(self.channels, wide, keep=True)
                    self._convolution(self.channels, wide, keep=True)
                    self.channels = wide
            self.last = nn.Sequential(
                nn.Linear(self.channels, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Dropout(), nn.Linear(7, 4)
            )
            randomised(self, seed)

    def _convolution(self, inputs: int, outputs: int, *, keep: bool = False) -> None:
        kernel = self.random.choice([1, 3, 5])
        groups = self.random.choice([1, 1, 2]) if inputs % 2 == 0 and outputs % 2 == 0 else 1
        stride = 1 if keep else self.random.choice([1, 1, 2])
        dilation = self.random.choice([1, 1, 2])
        padding = dilation * (kernel // 2) + (0 if stride == 1 else self.random.randint(0, 1))
        bias = self.random.random() < 0.5
        part: nn.Module = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias)
        if self.random.random() < 0.7:
            part = nn.Sequential(part, nn.BatchNorm2d(outputs))
        self.parts.append(part)

    def forward(self, x: Tensor) -> Tensor:
        parts = iter(self.parts)
        x = F.relu(next(parts)(x))
        for stage in self.stages:
            small = min(x.shape[-2:]) < 3
            if stage == "plain":
                x = F.relu(next(parts)(x))
            elif stage == "early":
                x = next(parts)(x)
                x = F.relu(x if min(x.shape[-2:]) < 2 else F.avg_pool2d(x, 2, 1))
            elif stage == "residual":
                x = F.relu(next(parts)(x) + x)
            elif stage == "branch":
                y = next(parts)(x)
                y += next(parts)(x) * 0.5
                x = y.clamp(min=0)
            elif stage == "average" and not small:
                x = F.avg_pool2d(x, 3, 2)
            elif stage == "max" and not small:
                x = F.max_pool2d(x, 2)
        return self.last(x.mean((2, 3)))


def random_images(seed: int, count: int = 3) -> Tensor:
    """Images for the random net of that seed."""
    size = RandomNet(seed).size
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))
