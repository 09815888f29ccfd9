"""A rotary embedding as many projects write it in NumPy: lanes i and i + d/2 form a pair."""

import numpy as np


def rope(x, positions):
    """Rotate x of shape (batch, heads, seq, head_dim)."""
    dim = x.shape[-1]
    inv_freq = 1.0 / 10000.0 ** (np.arange(0, dim, 2) / dim)
    angles = positions[:, None] * inv_freq
    cos, sin = np.cos(angles), np.sin(angles)
    first, second = np.split(x, 2, axis=-1)
    rotated = np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x.dtype)
