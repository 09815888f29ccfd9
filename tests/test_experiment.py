"""The experiment: its fairness, its arithmetic, and that the files shown are of one run."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from rotary_spec_bench.experiment import TASKS, Settings, markdown, summarise  # noqa: E402
from rotary_spec_bench.experiment.__main__ import main, run_all  # noqa: E402
from rotary_spec_bench.experiment.report import readings  # noqa: E402
from rotary_spec_bench.experiment.text import (  # noqa: E402
    read_text,
    training_batch,
    validation_batch,
)
from rotary_spec_bench.experiment.training import train  # noqa: E402

RESULTS = Path(__file__).parents[1] / "bench" / "results"
TINY = Settings(
    width=16, heads=2, layers=1, context=24, batch=2, steps=3, evaluate_every=2,
    validation_sequences=2, seeds=(0,),
)  # fmt: skip


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_variants_differ_in_positions_only(task):
    runs = [train(task, variant, 0, TINY) for variant in task.variants]
    assert len({run.start for run in runs}) == 1  # parameters and first batch
    assert len({run.parameters for run in runs}) == 1
    assert all(run.steps == [0, 2, 3] for run in runs)
    assert len({run.bits[0] for run in runs}) == len(runs)  # positions are seen by the model
    assert np.isfinite([run.bits for run in runs]).all()
    again = train(task, task.variants[-1], 0, TINY)
    assert again.bits == runs[-1].bits
    assert train(task, task.variants[-1], 1, TINY).start != runs[-1].start


def test_a_model_learns():
    settings = replace(TINY, steps=60, evaluate_every=60, learning_rate=1e-2)
    before, after = train(TASKS[0], TASKS[0].variants[-1], 0, settings).bits
    assert after < before - 1


def test_text():
    text = read_text()
    assert len(text.train) + len(text.validation) > 300_000
    assert text.train.max() < len(text.alphabet)
    rng = np.random.default_rng(0)
    assert training_batch(text, 10, 3, rng).shape == (3, 11)
    same = validation_batch(text, 10, 3)
    assert np.array_equal(same[0], text.validation[:11])
    assert np.array_equal(same[-1], text.validation[-11:])


def fake(**bits):
    """Results with two seeds, the given final losses, and curves that fall to them from 3.0."""
    names = {"none": "no positions", "sinusoids": "sinusoids", "rope": "RoPE"}
    runs = [
        {"task": task.name, "variant": names[key], "seed": seed, "steps": [0, 1, 2],
         "bits": [3.0, 2.5, final]}
        for task in TASKS for key, finals in bits.items() for seed, final in enumerate(finals)
    ]  # fmt: skip
    return {"settings": {"steps": 2, "seeds": [0, 1]}, "runs": runs}


def test_summary_pairs_the_seeds():
    results = fake(none=(2.5, 2.4), sinusoids=(2.0, 2.2), rope=(2.1, 2.1))
    none, sinusoids, rope = summarise(results)[:3]
    assert none.behind == pytest.approx((0.4, 0.3))
    assert none.reached == (1, 2)
    assert sinusoids.behind == pytest.approx((-0.1, 0.1))
    assert sinusoids.reached == (None, 2)
    assert rope.behind == ()
    first, second, *_ = readings(summarise(results))
    assert "RoPE ends lower than no positions (difference +0.350" in first
    assert "RoPE and sinusoids are not told apart" in second
    lines = markdown(results)
    assert (
        "| no positions | 2.450 (2.400 to 2.500) | +0.350 (+0.300 to +0.400) | 1 to 2" in lines[2]
    )
    assert "in 1 of 2 runs" in lines[3]


def test_a_difference_within_the_spread_of_seeds_is_none():
    results = fake(none=(2.9, 2.9), sinusoids=(2.3, 2.6), rope=(2.2, 2.5))
    assert "not told apart" in readings(summarise(results))[1]
    results = fake(none=(2.9, 2.9), sinusoids=(2.2, 2.2), rope=(2.5, 2.5))
    assert "RoPE ends higher than sinusoids" in readings(summarise(results))[1]


def test_the_whole_of_it(tmp_path):
    """From training in processes to the three files, small."""
    results = run_all(TINY, jobs=2)
    assert len(results["runs"]) == sum(len(task.variants) for task in TASKS)
    assert {"torch", "python", "cpu", "text", "seconds"} <= set(results["provenance"])
    (tmp_path / "experiment.json").write_text(json.dumps(results))
    assert main(["--redraw", "--out", str(tmp_path)]) == 0
    table = (tmp_path / "experiment.md").read_text(encoding="utf-8").splitlines()
    assert table == markdown(results)
    assert (tmp_path / "experiment.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_run_is_said(tmp_path, capsys):
    assert main(["--redraw", "--out", str(tmp_path / "nobody")]) == 2
    assert "not run:" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--steps", "0"])


def test_the_table_that_is_shown_is_that_of_the_run():
    results = json.loads((RESULTS / "experiment.json").read_text(encoding="utf-8"))
    shown = (RESULTS / "experiment.md").read_text(encoding="utf-8").splitlines()
    assert shown == markdown(results)
    settings = results["settings"]
    assert settings == json.loads(json.dumps(Settings().__dict__))
    grid = {(t.name, v.name, s) for t in TASKS for v in t.variants for s in settings["seeds"]}
    assert {(run["task"], run["variant"], run["seed"]) for run in results["runs"]} == grid
    for task in TASKS:
        for seed in settings["seeds"]:
            pairs = [r for r in results["runs"] if (r["task"], r["seed"]) == (task.name, seed)]
            assert len({run["start"] for run in pairs}) == 1
    assert (RESULTS / "experiment.png").stat().st_size < 150_000
