"""Random changes of images at training time, drawn from torch's global generator so that runs resume bit for bit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional

from stillhouse.errors import OptionError, nearest


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Each image of a batch is moved, turned, scaled, mirrored and changed in contrast at random.

    torchvision's v2 transforms draw once for a whole batch; these draw for each image, in one pass over the batch.

    There is no mirroring unless it is asked for: left and right mean something in a body.

    Args:
        shift: largest move to each side, as a share of the image's side.
        rotate: largest turn to each side, in degrees.
        scale: largest change of size, as a share.
        contrast: largest change of contrast and of brightness, as a share.
        noise: standard deviation of Gaussian noise added to pixels in [0, 1].
        mirror: mirror left and right in half of the cases.
    """

    shift: float = 0.0
    rotate: float = 0.0
    scale: float = 0.0
    contrast: float = 0.0
    noise: float = 0.0
    mirror: bool = False

    def __post_init__(self) -> None:
        for name, top in (("shift", 1.0), ("rotate", 180.0), ("scale", 0.9), ("contrast", 1.0), ("noise", 1.0)):
            value = getattr(self, name)
            if not 0 <= value <= top:
                raise OptionError(f"{name} is {value}", where="augmentation", fix=f"a number from 0 to {top:g}")

    @property
    def active(self) -> bool:
        """Something is drawn at random."""
        return self != Augment()

    def __call__(self, images: Tensor, masks: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Changed images ``[B, C, H, W]`` and class masks ``[B, H, W]``, which move and turn together."""
        count = len(images)
        if self.shift or self.rotate or self.scale or self.mirror:
            angle = torch.empty(count).uniform_(-1, 1) * math.radians(self.rotate)
            size = 1 + torch.empty(count).uniform_(-1, 1) * self.scale
            side = torch.where(torch.rand(count) < 0.5, -1.0, 1.0) if self.mirror else torch.ones(count)
            # A move is measured in half image sides by affine_grid.
            move = torch.empty(count, 2).uniform_(-1, 1) * 2 * self.shift
            cos, sin = angle.cos() / size, angle.sin() / size
            rows = [torch.stack([cos * side, -sin, move[:, 0]], 1), torch.stack([sin * side, cos, move[:, 1]], 1)]
            grid = functional.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
            images = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
            if masks is not None:
                moved = functional.grid_sample(
                    masks[:, None].float(), grid, mode="nearest", padding_mode="border", align_corners=False
                )
                masks = moved[:, 0].to(masks.dtype)
        if self.contrast:
            factor = 1 + torch.empty(count, 1, 1, 1).uniform_(-1, 1) * self.contrast
            offset = torch.empty(count, 1, 1, 1).uniform_(-1, 1) * self.contrast / 2
            mean = images.mean(dim=(1, 2, 3), keepdim=True)
            images = (images - mean) * factor + mean + offset
        if self.noise:
            images = images + torch.randn_like(images) * self.noise
        return images.clamp(0, 1), masks


NONE = Augment()


def augmentation(options: Mapping[str, float] | None) -> Augment:
    """The augmentation that a recipe's ``augment`` describes.

    Raises:
        OptionError: an unknown name (with the nearest), or a value outside its range.
    """
    known = [each.name for each in fields(Augment)]
    for name in options or {}:
        if name not in known:
            raise OptionError(f"'{name}' is no augmentation", where="dataset.augment", fix=nearest(name, known))
    return Augment(**{name: bool(v) if name == "mirror" else float(v) for name, v in (options or {}).items()})
