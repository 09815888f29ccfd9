"""MLX arrays, for targets written in MLX (there is no MLX backend)."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import numpy.typing as npt

from rotary_spec_backends.frameworks import Array, Framework, HostArray


class MlxFramework(Framework):
    """MLX arrays on MLX's default device."""

    name = "mlx"
    module = "mlx.core"
    dtypes = ("float32", "float16", "bfloat16")
    differentiable = True

    @classmethod
    def _array_type(cls, module: ModuleType) -> type:
        return module.array  # type: ignore[no-any-return]

    def asarray(self, values: npt.ArrayLike, dtype: str) -> Array:
        host = np.asarray(values)
        host = host.astype(np.int64 if host.dtype.kind in "iu" else np.float32)
        return self.xp.array(host).astype(getattr(self.xp, dtype))

    def to_numpy(self, x: Array) -> HostArray:
        integral = "int" in str(x.dtype)
        host = np.array(x if integral else x.astype(self.xp.float32))
        return host.astype(np.int64 if integral else np.float64)

    def take(self, x: Array, lanes: list[int]) -> Array:
        return self.xp.take(x, self.xp.array(lanes), axis=-1)

    def gradient(self, function: Callable[[Array], Array], x: Array, seed: Array) -> Array:
        _, gradients = self.xp.vjp(lambda v: [function(v)], [x], [seed])
        return gradients[0]
