"""A generated image task of CIFAR's shape: nothing is downloaded, and a seed gives it again."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from graphgrow.data.parts import Data, Part
from graphgrow.errors import DataError

SIZE, PATCH, CLASSES = 32, 16, 10


def patterns(
    *,
    count: int = 4000,
    held_out: int = 2000,
    variants: int = 1,
    noise: float = 1.0,
    confused: float = 0.03,
    seed: int = 0,
) -> Data:
    """Ten classes of 3x32x32 images; each class is a set of patterns, and an image shows one of them.

    A pattern is a smooth random patch of 16x16 pixels. An image shows one of its class at a random place, mirrored at
    random and of random contrast, beside a fainter one of another class, over smooth background and pixel noise. A
    network has to know all patterns and to find them, so that accuracy grows with capacity.

    Args:
        count: images for training.
        held_out: images for validation, and as many for the test.
        variants: patterns of each class.
        noise: standard deviation of the pixel noise; the patterns have 1.
        confused: share of images, in all parts, whose label is drawn anew: what no network can learn.
        seed: of everything.

    Raises:
        DataError: if there is nothing to draw.
    """
    if min(count, held_out, variants) < 1 or noise < 0 or not 0 <= confused <= 1:
        raise DataError(
            f"patterns(count={count}, held_out={held_out}, variants={variants}, noise={noise}, confused={confused}): "
            "counts are at least 1, noise at least 0, confused a share"
        )
    generator = torch.Generator().manual_seed(seed)
    shown = _smooth(CLASSES * variants, PATCH, 5, generator).view(CLASSES, variants, 3, PATCH, PATCH)
    training, validation, test = (
        _images(size, shown, noise, confused, generator) for size in (count, held_out, held_out)
    )
    source = f"generated patterns, 3x32x32 pixels, {variants} of each of {CLASSES} classes, seed {seed}"
    return Data(training, validation, test, classes=CLASSES, source=source)


def _smooth(count: int, size: int, grain: int, generator: torch.Generator) -> torch.Tensor:
    """Random fields (count, 3, size, size) of mean 0 and deviation 1, smooth over size / grain pixels."""
    coarse = torch.randn(count, 3, grain, grain, generator=generator)
    fields = F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False)
    fields = fields - fields.mean((1, 2, 3), keepdim=True)
    return fields / fields.std((1, 2, 3), keepdim=True)


def _images(count: int, shown: torch.Tensor, noise: float, confused: float, generator: torch.Generator) -> Part:
    def drawn(below: int) -> torch.Tensor:
        return torch.randint(below, (count,), generator=generator)

    labels = drawn(CLASSES)
    others = (labels + 1 + drawn(CLASSES - 1)) % CLASSES
    images = 0.5 * _smooth(count, SIZE, 4, generator)
    images += noise * torch.randn(count, 3, SIZE, SIZE, generator=generator)
    for classes, strength in ((labels, 1.0), (others, 0.4)):
        patches = shown[classes, drawn(shown.shape[1])]
        mirrored = drawn(2).bool()
        patches = torch.where(mirrored[:, None, None, None], patches.flip(3), patches)
        contrast = strength * (0.7 + 0.6 * torch.rand(count, 1, 1, 1, generator=generator))
        _put(images, patches * contrast, drawn(SIZE - PATCH + 1), drawn(SIZE - PATCH + 1))
    anew = torch.rand(count, generator=generator) < confused
    return Part(images / images.std(), torch.where(anew, drawn(CLASSES), labels))


def _put(images: torch.Tensor, patches: torch.Tensor, tops: torch.Tensor, lefts: torch.Tensor) -> None:
    """Add each patch to its image at its place."""
    count, channels = images.shape[:2]
    rows = tops[:, None] + torch.arange(PATCH)
    columns = lefts[:, None] + torch.arange(PATCH)
    places = (rows[:, :, None] * SIZE + columns[:, None, :]).view(count, 1, -1).expand(-1, channels, -1)
    images.view(count, channels, -1).scatter_add_(2, places, patches.reshape(count, channels, -1))
