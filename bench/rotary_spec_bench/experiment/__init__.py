"""Does RoPE make a language model learn faster? A small test of RoFormer's Figure 3.

Two tasks on the characters of Python's own documentation: a causal model with linear attention
(RoFormer Eq. 19, elu+1 features) without positions, with sinusoids added, and with RoPE; and a
bidirectional one with softmax attention that fills in masked characters, with sinusoids and with
RoPE. Variants of a task share everything else: parameters at the start, batches, masks.

``python -m rotary_spec_bench.experiment`` runs it in minutes on two cores, and writes the curves
(JSON), the table (Markdown) and the figure (PNG). It needs PyTorch, and Matplotlib for the figure.
"""

from __future__ import annotations

from rotary_spec_bench.experiment.report import markdown, summarise
from rotary_spec_bench.experiment.settings import TASKS, Settings, Task, Variant

__all__ = ["TASKS", "Settings", "Task", "Variant", "markdown", "summarise"]
