"""One run: a task, a variant and a seed give a curve."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import torch

from rotary_spec_bench.experiment.model import Model, loss_of
from rotary_spec_bench.experiment.settings import Settings, Task, Variant
from rotary_spec_bench.experiment.text import read_text, training_batch, validation_batch


@dataclass(frozen=True)
class Run:
    """The curve of one run.

    Attributes
    ----------
    task, variant : str
    seed : int
    parameters : int
    start : str
        Fingerprint of the parameters at the start and of the first batch: equal for all variants
        of a task and a seed, or the comparison is void.
    steps : list of int
    bits : list of float
        Validation loss after so many steps, in bits per predicted character.
    seconds : float
    """

    task: str
    variant: str
    seed: int
    parameters: int
    start: str
    steps: list[int]
    bits: list[float]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return asdict(self)


def train(task: Task, variant: Variant, seed: int, settings: Settings) -> Run:
    """Train one model from the seed; on as many threads, a run repeats bit for bit."""
    started = time.perf_counter()
    text = read_text()
    torch.manual_seed(seed)
    model = Model(settings, task, variant, len(text.alphabet))
    rng = np.random.default_rng([seed, 1])
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, settings))
    held_out = validation_batch(text, settings.context, settings.validation_sequences)
    validation = _examples(task, held_out, np.random.default_rng(0), settings, len(text.alphabet))
    steps, bits, fingerprint = [0], [_bits(model, validation)], ""
    for step in range(1, settings.steps + 1):
        batch = training_batch(text, settings.context, settings.batch, rng)
        examples = _examples(task, batch, rng, settings, len(text.alphabet))
        fingerprint = fingerprint or _fingerprint(model, examples)
        optimiser.zero_grad()
        loss_of(model, *examples).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % settings.evaluate_every == 0 or step == settings.steps:
            steps.append(step)
            bits.append(_bits(model, validation))
    size = sum(p.numel() for p in model.parameters())
    seconds = time.perf_counter() - started
    return Run(task.name, variant.name, seed, size, fingerprint, steps, bits, seconds)


def _rate(step: int, settings: Settings) -> float:
    """Share of the learning rate: up over a twentieth of the steps, then a cosine to a tenth."""
    warm = max(1, settings.steps // 20)
    if step < warm:
        return (step + 1) / warm
    done = (step - warm) / max(1, settings.steps - warm)
    return 0.1 + 0.9 * (1 + math.cos(math.pi * done)) / 2


def _examples(
    task: Task, batch: Any, rng: np.random.Generator, settings: Settings, mask: int
) -> tuple[Any, Any, Any]:
    """Inputs, targets, and the places that are counted, each (batch, context)."""
    ids = torch.from_numpy(batch)
    if task.kind == "causal":
        return ids[:, :-1], ids[:, 1:], torch.ones_like(ids[:, 1:], dtype=torch.bool)
    targets = ids[:, :-1]
    hidden = torch.from_numpy(rng.random(targets.shape) < settings.masked_share)
    return torch.where(hidden, mask, targets), targets, hidden


def _bits(model: Model, validation: tuple[Any, Any, Any]) -> float:
    with torch.no_grad():
        return float(loss_of(model, *validation)) / math.log(2)


def _fingerprint(model: Model, examples: tuple[Any, Any, Any]) -> str:
    digest = sha256()
    for tensor in (*model.parameters(), *examples):
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
