"""The small-image networks of the CMD paper that timm lacks, registered with timm under names of their own.

Importing this module makes `timm.create_model` know them. All take any number of channels and classes; only
LeNet-5 depends on the image size. Shapes are those of the papers cited at each class, in the sizes that the
released code of Brokman et al. (ICLR 2024) trains; where the usual network differs, an argument says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import resnet18
from torch import Tensor, nn
from torch.nn.functional import dropout, max_pool2d, relu


def _initialise(model: nn.Module) -> None:
    """Convolutions as He et al. (2015), eq. 10, over their outputs; biases 0."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class LeNet5(nn.Module):
    """LeNet-5 (LeCun et al. 1998) with ReLU and max-pooling, all widths but the last times `width`.

    `img_size` of at least 16. On 3x32x32 images and 10 classes it has 62,006 weights at width 1, and 548,878 at
    width 3, the one of the CMD paper. Raises ValueError where images are too small.
    """

    def __init__(self, num_classes: int = 10, in_chans: int = 3, img_size: int = 32, width: int = 3) -> None:
        super().__init__()
        side = ((img_size - 4) // 2 - 4) // 2
        if side < 1:
            raise ValueError(f"LeNet-5 needs images of at least 16x16, got {img_size}x{img_size}")
        self.num_classes = num_classes
        self.conv1 = nn.Conv2d(in_chans, 6 * width, 5)
        self.conv2 = nn.Conv2d(6 * width, 16 * width, 5)
        self.fc1 = nn.Linear(16 * width * side * side, 120 * width)
        self.fc2 = nn.Linear(120 * width, 84 * width)
        self.fc = nn.Linear(84 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = max_pool2d(relu(self.conv1(x)), 2)
        x = max_pool2d(relu(self.conv2(x)), 2)
        x = relu(self.fc2(relu(self.fc1(x.flatten(1)))))
        logits: Tensor = self.fc(x)
        return logits


class PreActivationUnit(nn.Module):
    """A residual unit whose normalisation and ReLU stand before each convolution (He et al. 2016b, figure 1b).

    `channels` and `kernels` list the convolutions after the input; the first 3x3 has the stride. Dropout at
    `drop_rate` stands before the last convolution (Zagoruyko and Komodakis 2016, section 2.4). Where the shape
    changes, the shortcut is a 1x1 convolution of the activated input.
    """

    def __init__(
        self, inputs: int, channels: Sequence[int], kernels: Sequence[int], stride: int, drop_rate: float, bias: bool
    ) -> None:
        super().__init__()
        self.drop_rate = drop_rate
        norms, convs = [], []
        width, left = inputs, stride
        for outputs, kernel in zip(channels, kernels, strict=True):
            norms.append(nn.BatchNorm2d(width))
            step = left if kernel == 3 else 1
            left = 1 if kernel == 3 else left
            convs.append(nn.Conv2d(width, outputs, kernel, step, kernel // 2, bias=bias))
            width = outputs
        self.norms, self.convs = nn.ModuleList(norms), nn.ModuleList(convs)
        self.shortcut = None
        if width != inputs or stride != 1:
            self.shortcut = nn.Conv2d(inputs, width, 1, stride, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        inner = relu(self.norms[0](x))
        short = x if self.shortcut is None else self.shortcut(inner)
        for index, conv in enumerate(self.convs):
            if index > 0:
                inner = relu(self.norms[index](inner))
            if index == len(self.convs) - 1 and self.drop_rate > 0:
                inner = dropout(inner, self.drop_rate, self.training)
            inner = conv(inner)
        out: Tensor = short + inner
        return out


class PreActivationResNet(nn.Module):
    """A ResNet of pre-activation units for small images: three stages, each after the first at half the resolution.

    `unit_channels[s]` lists the widths of the convolutions of a unit in stage s, and `units` counts the units of
    a stage. The stem is a 3x3 convolution to 16 channels (He et al. 2016b, section 4).
    """

    def __init__(
        self,
        unit_channels: Sequence[Sequence[int]],
        kernels: Sequence[int],
        units: int,
        num_classes: int = 10,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.conv1 = nn.Conv2d(in_chans, 16, 3, padding=1, bias=bias)
        width = 16
        stages = []
        for index, channels in enumerate(unit_channels):
            made = []
            for unit in range(units):
                stride = 2 if index > 0 and unit == 0 else 1
                made.append(PreActivationUnit(width, channels, kernels, stride, drop_rate, bias))
                width = channels[-1]
            stages.append(nn.Sequential(*made))
        self.stages = nn.Sequential(*stages)
        self.norm = nn.BatchNorm2d(width)
        self.fc = nn.Linear(width, num_classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = relu(self.norm(self.stages(self.conv1(x))))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


def _conv_norm(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class Inception(nn.Module):
    """An inception module (Szegedy et al. 2015, figure 2b), every convolution followed by BatchNorm.

    Widths as in the paper's table 1. The 5x5 convolution is two of 3x3 (Szegedy et al. 2016, section 3.1).
    """

    def __init__(
        self, inputs: int, one: int, reduce3: int, three: int, reduce5: int, five: int, projected: int
    ) -> None:
        super().__init__()
        self.one = _conv_norm(inputs, one, 1)
        self.three = nn.Sequential(_conv_norm(inputs, reduce3, 1), _conv_norm(reduce3, three, 3))
        self.five = nn.Sequential(
            _conv_norm(inputs, reduce5, 1), _conv_norm(reduce5, five, 3), _conv_norm(five, five, 3)
        )
        self.pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), _conv_norm(inputs, projected, 1))
        self.outputs = one + three + five + projected

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pooled(x)], 1)


INCEPTION_WIDTHS = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)
"""rows 3a to 5b of table 1 of Szegedy et al. (2015), by stage"""


class GoogLeNet(nn.Module):
    """GoogLeNet's inception modules (Szegedy et al. 2015) behind one 3x3 convolution, for images of about 32x32.

    Without the auxiliary classifiers; 6,166,250 weights for 3 channels and 10 classes. `drop_rate` is that of the
    pooled features.
    """

    def __init__(self, num_classes: int = 10, in_chans: int = 3, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.stem = _conv_norm(in_chans, 192, 3)
        width = 192
        stages: list[nn.Module] = []
        for index, rows in enumerate(INCEPTION_WIDTHS):
            if index > 0:
                stages.append(nn.MaxPool2d(3, 2, 1))
            for row in rows:
                module = Inception(width, *row)
                stages.append(module)
                width = module.outputs
        self.stages = nn.Sequential(*stages)
        self.drop = nn.Dropout(drop_rate)
        self.fc = nn.Linear(width, num_classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages(self.stem(x))
        logits: Tensor = self.fc(self.drop(x.mean((2, 3))))
        return logits


_HEADS = {
    "lenet5": ("conv1", "fc"),
    "wide_resnet28_10": ("conv1", "fc"),
    "preresnet164": ("conv1", "fc"),
    "preresnet164_basic": ("conv1", "fc"),
    "googlenet": ("stem.0", "fc"),
}
default_cfgs = generate_default_cfgs(
    {
        name: {"num_classes": 10, "input_size": (3, 32, 32), "first_conv": first, "classifier": last}
        for name, (first, last) in _HEADS.items()
    }
)
"""what timm looks up by a model's name; it has weights of none of these"""


def _build(cls: Any, name: str, pretrained: bool, **kwargs: Any) -> nn.Module:
    model: nn.Module = build_model_with_cfg(cls, name, pretrained, **kwargs)
    return model


@register_model
def lenet5(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """LeNet-5 of three times the usual width: 548,878 weights on 3x32x32 images; `width=1` is the usual one."""
    return _build(LeNet5, "lenet5", pretrained, **kwargs)


def _wide_resnet(depth: int, widen: int, **kwargs: Any) -> PreActivationResNet:
    """`bias` true: convolutions with biases, as the released code has them."""
    widths = [(16 * widen * factor,) * 2 for factor in (1, 2, 4)]
    return PreActivationResNet(widths, (3, 3), (depth - 4) // 6, **kwargs)


@register_model
def wide_resnet28_10(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """WideResNet-28-10 (Zagoruyko and Komodakis 2016): 36,479,194 weights, 36,489,290 with `bias=True`."""
    return _build(partial(_wide_resnet, 28, 10), "wide_resnet28_10", pretrained, **kwargs)


@register_model
def preresnet164(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Pre-activation ResNet-164 (He et al. 2016b): 18 bottleneck units a stage, 1,703,258 weights."""
    widths = [(width, width, 4 * width) for width in (16, 32, 64)]
    return _build(partial(PreActivationResNet, widths, (1, 3, 1), 18), "preresnet164", pretrained, **kwargs)


@register_model
def preresnet164_basic(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The pre-activation ResNet of 27 basic units a stage that the CMD paper's code trains as PreResNet-164.

    2,669,816 weights with that code's head of 1,000 outputs.
    """
    widths = [(width,) * 2 for width in (16, 32, 64)]
    return _build(partial(PreActivationResNet, widths, (3, 3), 27), "preresnet164_basic", pretrained, **kwargs)


@register_model
def googlenet(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """GoogLeNet for 32x32 images with BatchNorm: 6,166,250 weights."""
    return _build(GoogLeNet, "googlenet", pretrained, **kwargs)


@register_model
def resnet18_no_running_stats(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """timm's ResNet-18 whose BatchNorm keeps no statistics and normalises with the batch in evaluation too.

    Transductive: a prediction depends on the images that are evaluated with it. The released code of the CMD
    paper trains and evaluates so.
    """
    norm = partial(nn.BatchNorm2d, track_running_stats=False)
    model: nn.Module = resnet18(pretrained=pretrained, norm_layer=norm, **kwargs)
    return model
