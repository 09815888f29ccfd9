"""What is compared, and the sizes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Variant:
    """How a model is told positions.

    Attributes
    ----------
    name : str
    sinusoids : bool
        Added to the input of the first layer (RoFormer Eq. 4).
    rotary : bool
        Queries and keys, or their features, are rotated in every layer.
    """

    name: str
    sinusoids: bool = False
    rotary: bool = False


@dataclass(frozen=True)
class Task:
    """What is predicted, and with which attention.

    Attributes
    ----------
    name, title : str
    kind : {"causal", "masked"}
        The next character, by linear attention; or masked characters, by softmax attention.
    variants : tuple of Variant
        The last is RoPE, which the others are held against.
    """

    name: str
    title: str
    kind: Literal["causal", "masked"]
    variants: tuple[Variant, ...]


NONE = Variant("no positions")
SINUSOIDS = Variant("sinusoids", sinusoids=True)
ROPE = Variant("RoPE", rotary=True)

TASKS = (
    Task("causal", "Next character, linear attention", "causal", (NONE, SINUSOIDS, ROPE)),
    Task("masked", "Masked characters, softmax attention", "masked", (SINUSOIDS, ROPE)),
)


@dataclass(frozen=True)
class Settings:
    """Sizes and schedule, the same for all.

    Attributes
    ----------
    width, heads, layers : int
        Of the pre-norm transformer; the hidden layer is four times as wide.
    context, batch : int
        Characters of a sequence, sequences of a step.
    steps, evaluate_every : int
        Steps of AdamW; the validation loss is taken at 0, then after so many each.
    learning_rate, weight_decay : float
        The rate rises over the first 5 % of the steps and falls as a cosine to a tenth.
    masked_share : float
        Of the characters, in the masked task: every one of them is replaced by the mask.
    validation_sequences : int
        Always the same ones, spread over the last tenth of the text.
    seeds : tuple of int
        Each sets the parameters at the start and the order of the data of one run per variant.
    """

    width: int = 128
    heads: int = 4
    layers: int = 2
    context: int = 128
    batch: int = 8
    steps: int = 1200
    evaluate_every: int = 50
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    masked_share: float = 0.15
    validation_sequences: int = 64
    seeds: tuple[int, ...] = (0, 1, 2)
