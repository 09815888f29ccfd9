"""The position encodings of RoFormer's Section 2, and RoPE, as score functions to compare.

Each is a small frozen value; ``scores`` evaluates its equation on Array API arrays, and
`properties` measures what the paper argues about: whether a score depends on the distance only,
whether it fits linear attention, whether it goes on beyond the training length, how it decays.
"""

from __future__ import annotations

from rotary_spec.encodings.absolute import Learned, Sinusoidal
from rotary_spec.encodings.base import Call, Encoding
from rotary_spec.encodings.properties import Properties, properties
from rotary_spec.encodings.relative import T5, TUPE, DeBERTa, Rotary, Shaw, TransformerXL

__all__ = [
    "Call",
    "DeBERTa",
    "Encoding",
    "Learned",
    "Properties",
    "Rotary",
    "Shaw",
    "Sinusoidal",
    "T5",
    "TUPE",
    "TransformerXL",
    "paper_encodings",
    "properties",
]


def paper_encodings(dim: int, length: int, *, seed: int = 0) -> tuple[Encoding, ...]:
    """Every encoding that the paper compares, in its order, with the parameters of one seed.

    Parameters
    ----------
    dim : int
        Features of an input vector, even.
    length : int
        The training length, in positions: the size of the tables of absolute positions.
    seed : int
        Parameters of one name, such as W_q, are the same in all of them.

    Examples
    --------
    >>> from rotary_spec.encodings import paper_encodings
    >>> [encoding.name for encoding in paper_encodings(8, 64)][-2:]
    ['DeBERTa', 'RoPE']
    """
    return (
        Learned(dim=dim, seed=seed, length=length),
        Sinusoidal(dim=dim, seed=seed),
        Shaw(dim=dim, seed=seed),
        TransformerXL(dim=dim, seed=seed),
        T5(dim=dim, seed=seed),
        TUPE(dim=dim, seed=seed, length=length),
        DeBERTa(dim=dim, seed=seed),
        Rotary(dim=dim, seed=seed),
    )
