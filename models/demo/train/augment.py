"""Augmentation of a whole batch at once: transparent artwork onto random backgrounds, moved, turned and tinted."""

import math

import torch
import torch.nn.functional as F


def random_backgrounds(count: int, side: int, generator: torch.Generator, strength: float) -> torch.Tensor:
    """White half of the time, else a plain colour or a soft gradient between two."""
    def uniform(*shape):
        return torch.rand(*shape, generator=generator)

    first, second = uniform(count, 3, 1, 1), uniform(count, 3, 1, 1)
    light = 1 - 0.25 * uniform(count, 3, 1, 1)
    kind = uniform(count, 1, 1, 1) * (0.4 + 0.6 * strength)  # the weaker, the more white pages
    angle = uniform(count, 1, 1, 1) * 2 * math.pi
    line = torch.linspace(-0.5, 0.5, side)
    ramp = (0.5 + 0.7 * (line.view(1, 1, 1, -1) * angle.cos() + line.view(1, 1, -1, 1) * angle.sin())).clamp(0, 1)
    gradient = first + (second - first) * ramp
    plain = torch.where(kind < 0.72, light, first).expand(-1, -1, side, side)
    white = torch.ones(count, 3, side, side)
    return torch.where(kind < 0.55, white, torch.where(kind < 0.88, plain, gradient))


def turned_hue(colour: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    """Rotates colours [n, 3, h, w] about the grey axis by angle [n], in radians (Rodrigues' formula)."""
    cos, sin = angle.cos(), angle.sin()
    even, odd = (1 - cos) / 3, sin / math.sqrt(3)
    matrix = torch.stack([
        torch.stack([cos + even, even - odd, even + odd], -1),
        torch.stack([even + odd, cos + even, even - odd], -1),
        torch.stack([even - odd, even + odd, cos + even], -1),
    ], 1)
    return torch.einsum("nij,njhw->nihw", matrix, colour)


def holes(count: int, side: int, uniform, strength: float) -> torch.Tensor:
    """A mask [n, 1, side, side] of one rectangle in some of the pictures, to be erased (Zhong et al. 2020)."""
    line = torch.linspace(0, 1, side)
    height, width = uniform(count, 1, low=0.15, high=0.45), uniform(count, 1, low=0.15, high=0.45)
    top, left = uniform(count, 1, low=-0.1, high=0.9), uniform(count, 1, low=-0.1, high=0.9)
    rows = (line >= top) & (line < top + height)
    columns = (line >= left) & (line < left + width)
    chosen = uniform(count, 1, 1) < 0.45 * strength
    return (rows[:, :, None] & columns[:, None, :] & chosen)[:, None].float()


def augment(rgba: torch.Tensor, one_colour: torch.Tensor, may_flip: torch.Tensor, side: int,
            generator: torch.Generator, strength: float = 1.0) -> torch.Tensor:
    """uint8 RGBA [n, s, s, 4] → float RGB [n, 3, side, side] in [-1, 1]; strength scales every movement."""
    def uniform(*shape, low=0.0, high=1.0):
        return low + (high - low) * torch.rand(*shape, generator=generator)

    count = rgba.shape[0]
    pixels = rgba.permute(0, 3, 1, 2).float() / 255
    colour, alpha = pixels[:, :3], pixels[:, 3:]
    background = random_backgrounds(count, side, generator, strength)

    # One-colour drawings get a random ink, dark on light or light on dark.
    ink = uniform(count, 3, 1, 1) * 0.6
    dark_page = uniform(count, 1, 1, 1) < 0.2
    ink = torch.where(dark_page, 1 - ink * 0.5, ink)
    mono = one_colour.view(-1, 1, 1, 1)
    colour = torch.where(mono, ink.expand_as(colour), colour)
    page = torch.where(dark_page, background * 0.35, 1 - (1 - background) * 0.4)
    background = torch.where(mono, page, background)

    # Mild changes of brightness, contrast, saturation and of each channel: the colour often is the meaning.
    gray = colour.mean(1, keepdim=True)
    colour = gray + (colour - gray) * uniform(count, 1, 1, 1, low=0.7, high=1.4)
    colour = (colour - 0.5) * uniform(count, 1, 1, 1, low=0.8, high=1.2) + 0.5
    colour = colour + uniform(count, 1, 1, 1, low=-0.1, high=0.1) + uniform(count, 3, 1, 1, low=-0.05, high=0.05)
    colour = turned_hue(colour, uniform(count, low=-0.45, high=0.45) * strength * (uniform(count) < 0.5))
    outlined = uniform(count, 1, 1, 1) < 0.15 * strength
    wide = F.max_pool2d(alpha, 3, stride=1, padding=1)
    edge = torch.where(outlined, wide, alpha)
    colour = torch.where(outlined & (alpha < 0.5), uniform(count, 3, 1, 1, high=0.3), colour)
    layered = torch.cat([colour.clamp(0, 1) * edge, edge], 1)
    layered = layered * (1 - holes(count, layered.shape[-1], uniform, strength))

    turn = uniform(count, low=-1, high=1) * math.radians(12) * strength
    scale = uniform(count, low=1 - 0.12 * strength, high=1 + 0.3 * strength)  # over 1: the drawing is smaller than the picture
    stretch = uniform(count, low=1 - 0.1 * strength, high=1 + 0.1 * strength)
    mirror = torch.where((uniform(count) < 0.35 * strength) & may_flip, -1.0, 1.0)
    shift = uniform(count, 2, low=-0.12, high=0.12) * strength
    shear = uniform(count, low=-0.08, high=0.08) * strength
    cos, sin = turn.cos() * scale, turn.sin() * scale
    matrix = torch.stack([
        torch.stack([cos * mirror * stretch, -sin * mirror + shear, shift[:, 0]], -1),
        torch.stack([sin, cos / stretch, shift[:, 1]], -1),
    ], 1)
    grid = F.affine_grid(matrix, (count, 4, side, side), align_corners=False)
    layered = F.grid_sample(layered, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    picture = layered[:, :3] + background * (1 - layered[:, 3:])
    soft = F.avg_pool2d(picture, 3, stride=1, padding=1, count_include_pad=False)
    picture = torch.where(uniform(count, 1, 1, 1) < 0.2 * strength, soft, picture)

    return picture * 2 - 1
