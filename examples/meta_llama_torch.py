"""Rotary embedding with complex numbers, as in Meta's Llama: neighbouring lanes form a pair."""

import torch


def apply_rotary_emb(xq: torch.Tensor, xk: torch.Tensor, freqs_cis: torch.Tensor):
    """Rotate xq and xk of shape (batch, seq, heads, head_dim) by freqs_cis (seq, head_dim / 2)."""

    def rotate(x: torch.Tensor) -> torch.Tensor:
        pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * freqs_cis[:, None, :]).flatten(-2).type_as(x)

    return rotate(xq), rotate(xk)
