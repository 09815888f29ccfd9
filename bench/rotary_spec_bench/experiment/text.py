"""The text: Python's own documentation of its language, which every installation has."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib import import_module

import numpy as np
import numpy.typing as npt

from rotary_spec import TargetError


@dataclass(frozen=True)
class Text:
    """Characters as numbers.

    Attributes
    ----------
    train, validation : integer arrays
        The first nine tenths, and the rest.
    alphabet : str
        The character of each number.
    digest : str
        SHA-256 of the text in UTF-8: it differs between versions of Python.
    """

    train: npt.NDArray[np.int64]
    validation: npt.NDArray[np.int64]
    alphabet: str
    digest: str


@cache
def read_text() -> Text:
    """The topics of ``help()`` in the order of their names, each text once."""
    try:
        topics = import_module("pydoc_data.topics").topics
    except ModuleNotFoundError:
        raise TargetError(
            "this Python has no pydoc_data.topics. Hint: the full standard library has it; on "
            "Debian, install python3 in place of python3-minimal"
        ) from None
    text = "\n\n".join(dict.fromkeys(topics[name] for name in sorted(topics)))
    alphabet = "".join(sorted(set(text)))
    numbers = {character: number for number, character in enumerate(alphabet)}
    ids = np.asarray([numbers[character] for character in text])
    split = len(ids) * 9 // 10
    return Text(ids[:split], ids[split:], alphabet, sha256(text.encode()).hexdigest())


def training_batch(
    text: Text, context: int, batch: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Sequences of ``context + 1`` characters from random places, shape (batch, context + 1)."""
    starts = rng.integers(0, len(text.train) - context, size=batch)
    return np.stack([text.train[start : start + context + 1] for start in starts])


def validation_batch(text: Text, context: int, sequences: int) -> npt.NDArray[np.int64]:
    """The same sequences every time, evenly spread, shape (sequences, context + 1)."""
    starts = np.linspace(0, len(text.validation) - context - 1, sequences).astype(int)
    return np.stack([text.validation[start : start + context + 1] for start in starts])
