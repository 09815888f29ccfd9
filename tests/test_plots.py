"""Figures: the numbers that are drawn, the files, and what is said where there is none."""

import json
import sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import rotary_spec as rs
from rotary_spec import plots
from rotary_spec.cli import app

pytest.importorskip("matplotlib")
YARN = "yarn:factor=8,original_max_position_embeddings=4096"


def run(*arguments):
    return CliRunner().invoke(app, ["plot", *(str(a) for a in arguments)])


def panels(figure):
    return {axes.get_title(): axes for axes in figure.axes if axes.get_title()}


def test_decay_draws_the_curves():
    specs = [rs.RotarySpec(64), rs.RotarySpec(64, base=500.0, schedule=rs.Linear(2.0))]
    (axes,) = plots.draw_decay(specs, max_distance=50).axes
    for spec, line in zip(specs, axes.lines, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), np.arange(51))
        expected = rs.decay.mean_partial_sum(np.arange(51), spec)
        np.testing.assert_array_equal(line.get_ydata(), expected)
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts == ["base=10000, default", "base=500, linear (factor=2)"]
    assert "positions" in axes.get_xlabel()


def test_long_distances_are_drawn_on_a_logarithmic_axis_with_their_range():
    spec = rs.RotarySpec(64)
    (axes,) = plots.draw_decay([spec], max_distance=100_000).axes
    assert axes.get_xscale() == "log"
    (line,), (band,) = axes.lines, axes.collections
    assert 1 <= line.get_xdata()[0] < line.get_xdata()[-1] <= 100_000
    edges = band.get_paths()[0].vertices[:, 1]
    assert edges.min() < line.get_ydata().min()
    assert edges[len(edges) // 2 :].max() > line.get_ydata()[-1]


def test_spec_draws_before_and_after():
    spec = rs.RotarySpec(64, schedule=rs.Linear(4.0), attention_factor=1.5)
    found = panels(plots.draw_spec(spec, max_position=30))
    before, after = found["Wavelengths"].lines
    np.testing.assert_array_equal(after.get_ydata(), 2 * np.pi / rs.frequencies(spec))
    np.testing.assert_allclose(after.get_ydata() / before.get_ydata(), 4, rtol=2.0**-50)
    (ratio,) = found["Schedule, attention factor A = 1.5"].lines
    np.testing.assert_allclose(ratio.get_ydata(), 0.25, rtol=2.0**-50)
    (image,) = found["Rotation"].images
    cos, _ = rs.cos_sin(np.arange(31), rs.RotarySpec(64, schedule=rs.Linear(4.0)))
    np.testing.assert_array_equal(image.get_array(), cos.T)


def test_pairs_that_do_not_turn_and_lengths():
    """A frequency of 0 has no wavelength; a schedule that needs a length is given it."""
    still = rs.RotarySpec(8, schedule=rs.Explicit((1.0, 0.5, 0.1, 0.0)))
    wavelengths = panels(plots.draw_spec(still))["Wavelengths"].lines[-1].get_ydata()
    assert np.isnan(wavelengths[-1])
    assert np.isfinite(wavelengths[:-1]).all()
    dynamic = rs.RotarySpec(8, schedule=rs.DynamicNtk(2.0, 128))
    drawn = panels(plots.draw_spec(dynamic, seq_len=1024))["Wavelengths"].lines[-1].get_ydata()
    np.testing.assert_array_equal(drawn, 2 * np.pi / rs.frequencies(dynamic, 1024))


def test_labels_say_what_differs():
    assert plots.labels([rs.RotarySpec(64)]) == ["RotarySpec(head_dim=64)"]
    one, other = plots.labels([rs.RotarySpec(64, rotary_dim=32), rs.RotarySpec(64)])
    assert (one, other) == ("rotary_dim=32", "rotary_dim=64")
    one, other = plots.labels([rs.RotarySpec(64), rs.RotarySpec(128)])
    assert (one, other) == ("head_dim=64", "head_dim=128")


def test_commands_write_pictures(tmp_path):
    config = tmp_path / "config.json"
    config.write_text(
        json.dumps(
            {"model_type": "llama", "hidden_size": 128, "num_attention_heads": 2, "head_dim": 64}
        )
    )
    calls = {
        "paper.png": ("decay",),
        "two.png": ("decay", "--spec", "{}", "--spec", '{"base": 5e5, "rotary_dim": 32}'),
        "config.png": ("decay", "--config", config, "--max-distance", 5000),
        "spec.png": ("spec", "--base", 500_000, "--schedule", YARN),
    }
    for name, arguments in calls.items():
        done = run(*arguments, "--out", tmp_path / name)
        assert done.exit_code == 0, done.output
        with Image.open(tmp_path / name) as image:
            assert image.width >= 640
            assert len(image.convert("RGB").getcolors(2**24)) > 50  # something is drawn
    done = run("decay", "--out", tmp_path / "paper.svg")
    assert done.exit_code == 0
    assert "<svg" in (tmp_path / "paper.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("decay", "--out", "x.txt"), "out must end in one of"),
        (("decay", "--out", "nobody/x.png"), "cannot be written"),
        (("decay", "--out", "x.png", "--max-distance", 0), "max_distance must be at least 1"),
        (("decay", "--out", "x.png", "--spec", "base=5"), "is not JSON"),
        (("decay", "--out", "x.png", "--spec", "[5]"), "must be a JSON object"),
        (("decay", "--out", "x.png", "--spec", '{"theta": 5}'), "unknown field 'theta'"),
        (("decay", "--out", "x.png", "--config", "nobody.json"), "cannot be read"),
        (("spec", "--out", "x.png", "--head-dim", 63), "even and positive"),
        (("spec", "--out", "x.png", "--max-position", 0), "max_position must be at least 1"),
        (("spec", "--out", "x.png", "--schedule", "nobody:factor=2"), "not a known schedule"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_said_and_exits_with_2(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run(*arguments)
    assert done.exit_code == 2, done.output
    assert words in done.output
    assert not list(tmp_path.iterdir())


def test_nothing_to_draw():
    with pytest.raises(rs.SpecError, match="at least one spec"):
        plots.draw_decay([])


def test_missing_matplotlib_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = run("decay", "--out", tmp_path / "x.png")
    assert done.exit_code == 2
    assert "pip install 'rotary-spec[plot]'" in done.output
