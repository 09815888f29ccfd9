"""Chunked causal linear attention on the CPU: time, and memory against length.

``python bench/linear_attention_cpu.py [--memory] [--threads N]`` prints JSON for ``results/``.
Time: PyTorch, float32, 1 x 8 heads x 16384 tokens x 64, medians, in one run, for

- ``chunked``: the backend's `linear_attention`, from q, k, v to the output;
- ``products``: the same matrix products alone, on the same chunks (five for each: weights, their
  product with v, q S, k^T v, and the sums of phi(k));
- ``cumulative``: the usual formulation without a kernel: outer products of R phi(k) and v, their
  cumulative sum along the sequence, and its product with R phi(q), in blocks of 512 tokens,
  because for the whole sequence it needs 2 GiB; features and rotation as the backend's.

Memory: growth of the peak resident size, forward and backward, in a fresh process for each length.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time

import torch

import rotary_spec as rs
from rotary_spec_backends import select

HEADS, LENGTH, WIDTH = 8, 16384, 64
SPEC = rs.RotarySpec(WIDTH)
LENGTHS = [4096 * 4**i for i in range(4)]


def inputs(length, learning=False):
    torch.manual_seed(0)
    return [torch.randn(1, HEADS, length, WIDTH, requires_grad=learning) for _ in range(3)]


def chunked(q, k, v, positions):
    return select("torch").linear_attention(q, k, v, positions, SPEC, causal=True)


def products(q, k, v, chunk):
    triangle = torch.ones(chunk, chunk).tril()
    for start in range(0, q.shape[-2], chunk):
        a, b, c = (x[0, :, start : start + chunk] for x in (q, k, v))
        state = b.mT @ c
        (a @ b.mT) @ c
        a @ state
        triangle.expand(HEADS, -1, -1) @ b


def cumulative(q, k, v, positions, block=512):
    backend = select("torch")
    phi_q, phi_k = (torch.where(x > 0, x + 1, x.exp()) for x in (q, k))
    turned_q, turned_k = backend.rotate((phi_q, phi_k), positions, SPEC)
    state, sums, outs = 0.0, 0.0, []
    for a, ra, b, rb, c in zip(
        *(x.split(block, -2) for x in (phi_q, turned_q, phi_k, turned_k, v))
    ):
        outer = (rb[..., :, None] * c[..., None, :]).cumsum(-3) + state
        normaliser = b.cumsum(-2) + sums
        out = (ra[..., None, :] @ outer)[..., 0, :] / (a * normaliser).sum(-1, keepdim=True)
        outs.append(out)
        state, sums = outer[..., -1:, :, :], normaliser[..., -1:, :]
    return torch.cat(outs, -2)


def median_of(function, clock, repeats):
    function()
    times = []
    for _ in range(repeats):
        start = clock()
        function()
        times.append(clock() - start)
    return statistics.median(times)


def timings(repeats, clock):
    q, k, v = inputs(LENGTH)
    positions = torch.arange(LENGTH)
    host = [x.numpy() for x in (q, k, v)]
    with torch.no_grad():
        ours, naive = chunked(q, k, v, positions), cumulative(q, k, v, positions)
        assert (ours - naive).abs().max() <= 1e-4, "a wrong result is not timed"
        arms = {
            "chunked": lambda: chunked(q, k, v, positions),
            "products": lambda: products(q, k, v, select("torch").chunk),
            "cumulative": lambda: cumulative(q, k, v, positions),
            "chunked, numpy": lambda: select("numpy").linear_attention(
                *host, positions.numpy(), SPEC, causal=True
            ),
        }
        return {name: median_of(arm, clock, repeats) for name, arm in arms.items()}


def growth(length, backward):
    """Growth of this process's peak memory in MiB, beyond a small warm-up and the inputs."""
    chunked(*inputs(256), torch.arange(256))
    q, k, v = inputs(length, learning=backward)
    positions = torch.arange(length)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    out = chunked(q, k, v, positions)
    if backward:
        out.sum().backward()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def memory():
    rows = {}
    for mode in ("forward", "backward"):
        rows[mode] = {
            length: float(
                subprocess.check_output([sys.executable, __file__, "--growth", str(length), mode])
            )
            for length in LENGTHS
        }
    return rows


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--growth", nargs=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cpu-time", action="store_true", help="processor time, on a busy machine")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.growth:
        print(growth(int(given.growth[0]), given.growth[1] == "backward"))
        return
    result = {
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
        "threads": given.threads,
        "clock": "processor time" if given.cpu_time else "wall",
    }
    if given.memory:
        result["peak memory growth, MiB"] = memory()
    else:
        clock = time.process_time if given.cpu_time else time.perf_counter
        result["seconds, median"] = timings(given.repeats, clock)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
