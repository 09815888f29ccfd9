"""The same with a cache, and a bug that short tests do not see: its key lacks the offset."""

import numpy as np


class CachedRope:
    """Rotates rows that start at ``offset``; keeps the tables of the lengths it has seen."""

    def __init__(self):
        self.tables = {}

    def __call__(self, x, offset=0):
        length, dim = x.shape[-2:]
        if length not in self.tables:
            inv_freq = 1.0 / 10000.0 ** (np.arange(0, dim, 2) / dim)
            angles = (np.arange(length) + offset)[:, None] * inv_freq
            self.tables[length] = np.cos(angles), np.sin(angles)
        cos, sin = self.tables[length]
        first, second = np.split(x, 2, axis=-1)
        rotated = np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
        return rotated.astype(x.dtype)
