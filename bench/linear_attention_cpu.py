"""Chunked causal linear attention on the CPU: time, and memory against length.

``python bench/linear_attention_cpu.py`` takes some eight minutes on two cores, prints a table, and
writes ``results/linear_attention-cpu.json``.

Time: PyTorch, float32, 1 x 8 heads x 16384 tokens x 64, no gradient. Each number of threads has
three processes of its own, in which the first three arms take turns, and then the others; medians
of the rounds, after one that does not count, and of the processes.

- ``chunked``: the backend's `linear_attention`, from q, k, v to a new output, in its own chunk;
- ``products``: the same matrix products alone, on the same chunks and in buffers too: for every
  chunk and head weights = q k^T, out = q S + weights v, S += k^T v, and, for the denominators, a
  triangle of ones times k. Features, rotation, mask and division are left out, and so is the
  output: all of it goes to one buffer that stays in the cache;
- ``products to output``: the same, but the output is a new array, as an operation's is. The
  difference is what the system takes for new pages;
- ``cumulative``: the usual formulation without a kernel: outer products of R phi(k) and v, their
  cumulative sum along the sequence, and its product with R phi(q), in blocks of 512 tokens,
  because for the whole sequence it needs 16 GiB; features and rotation as the backend's;
- ``chunked, numpy``: the NumPy backend.

Memory: growth of the peak resident size beyond the inputs, with 8 heads of 64, in a fresh process
for each length; "backward" is forward and backward. The exponents are least squares of log against
log. ``quadratic`` runs the definition and the chunked form at one length in 24 GiB of addresses.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

import rotary_spec as rs
from rotary_spec_backends import select
from rotary_spec_backends.torch_host_attention import CHUNK

HEADS, LENGTH, WIDTH = 8, 16384, 64
SPEC = rs.RotarySpec(WIDTH)
LENGTHS = [4096 * 4**i for i in range(4)]
# Arms that take turns. Each library's threads wait busily after its work: they stay apart.
TURNS = ("chunked", "products", "products to output"), ("cumulative",), ("chunked, numpy",)
ROUNDS = {"chunked": 15, "products": 15, "products to output": 15}
ROUNDS |= {"cumulative": 3, "chunked, numpy": 7}
PROCESSES = 3  # what new pages cost differs from process to process
ADDRESSES = 24 * 2**30
RESULTS = Path(__file__).parent / "results" / "linear_attention-cpu.json"


def inputs(length, learning=False):
    torch.manual_seed(0)
    return [torch.randn(1, HEADS, length, WIDTH, requires_grad=learning) for _ in range(3)]


def chunked(q, k, v, positions):
    return select("torch").linear_attention(q, k, v, positions, SPEC, causal=True)


def products(q, k, v, chunk, to_output):
    """Without features nothing is positive, and S grows: ``v`` is to be small."""
    q, k, v = q[0], k[0], v[0]
    weights, sums, state = (
        torch.empty(HEADS, chunk, chunk),
        torch.empty(HEADS, chunk, WIDTH),
        torch.zeros(HEADS, WIDTH, WIDTH),
    )
    triangle = torch.ones(chunk, chunk).tril().expand(HEADS, -1, -1)
    if to_output:
        outs = torch.empty_like(v).split(chunk, -2)
    else:
        outs = [torch.empty(HEADS, chunk, WIDTH)] * (LENGTH // chunk)
    for a, b, c, out in zip(*(x.split(chunk, -2) for x in (q, k, v)), outs):
        torch.bmm(a, b.mT, out=weights)
        torch.bmm(a, state, out=out)
        out.baddbmm_(weights, c)
        state.baddbmm_(b.mT, c)
        torch.bmm(triangle, b, out=sums)


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


def timings():
    """Median milliseconds of each arm, by the wall and of the processor."""
    q, k, v = inputs(LENGTH)
    positions, chunk = torch.arange(LENGTH), CHUNK
    host = [x.numpy() for x in (q, k, v)]
    small = v / LENGTH
    arms = {
        "chunked": lambda: chunked(q, k, v, positions),
        "products": lambda: products(q, k, small, chunk, False),
        "products to output": lambda: products(q, k, small, chunk, True),
        "chunked, numpy": lambda: select("numpy").linear_attention(
            *host, positions.numpy(), SPEC, causal=True
        ),
        "cumulative": lambda: cumulative(q, k, v, positions),
    }
    with torch.no_grad():
        ours, naive = arms["chunked"](), arms["cumulative"]()
        assert (ours - naive).abs().max() <= 1e-4, "a wrong result is not timed"
        times = {name: [] for name in arms}
        for together in TURNS:
            for _ in range(1 + ROUNDS[together[0]]):
                for name in together:
                    times[name].append(timed(arms[name]))
    return {
        name: [round(statistics.median(column), 2) for column in zip(*runs[1:])]
        for name, runs in times.items()
    }


def timed(arm):
    """Milliseconds by the wall and of the processor."""
    clocks = time.perf_counter, time.process_time
    before = [clock() for clock in clocks]
    arm()
    return [1e3 * (clock() - start) for clock, start in zip(clocks, before)]


def growth(length, mode):
    """Growth of this process's peak memory in MiB, beyond a small warm-up and the inputs."""
    learning = mode == "backward"
    warm = chunked(*inputs(256, learning), torch.arange(256))
    if learning:
        warm.sum().backward()
    q, k, v = inputs(length, learning)
    positions = torch.arange(length)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    out = chunked(q, k, v, positions)
    if learning:
        out.sum().backward()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def in_addresses(length, form):
    """Run a form of linear attention in `ADDRESSES`; what becomes of it."""
    q, k, v = inputs(length)
    positions = torch.arange(length)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    start = time.perf_counter()
    try:
        if form == "chunked":
            chunked(q, k, v, positions)
        else:
            rs.linear_attention(q, k, v, positions, SPEC, causal=True)
    except (RuntimeError, MemoryError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return f"ran in {time.perf_counter() - start:.2f} s"


PARTS = {"timings": timings, "growth": growth, "in_addresses": in_addresses}


def measured(threads, part, *arguments):
    """The result of one of `PARTS` in a process of its own."""
    command = [sys.executable, __file__, "--threads", str(threads), "--part", part]
    limits = {name: str(threads) for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")}
    said = subprocess.check_output([*command, *map(str, arguments)], env=os.environ | limits)
    return json.loads(said)


def exponent(rows):
    lengths, sizes = zip(*rows.items())
    return round(float(np.polyfit(np.log(lengths), np.log(sizes), 1)[0]), 3)


def measure():
    cores = os.cpu_count()
    provenance = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "processor": processor(),
        "cores": cores,
        "system": platform.platform(),
        "load average before": os.getloadavg()[0],
        "date": time.strftime("%Y-%m-%d"),
        "shape": [1, HEADS, LENGTH, WIDTH],
        "chunk": CHUNK,
        "rounds": ROUNDS,
        "processes": PROCESSES,
    }
    times = {}
    for threads in sorted({1, cores}):
        runs = [measured(threads, "timings") for _ in range(PROCESSES)]
        arms = {
            name: [round(statistics.median(column), 2) for column in zip(*(r[name] for r in runs))]
            for name in runs[0]
        }
        wall = {name: row[0] for name, row in arms.items()}
        times[threads] = {
            "median ms, wall": wall,
            "median ms, processor": {name: row[1] for name, row in arms.items()},
            "chunked / products": round(wall["chunked"] / wall["products"], 3),
            "chunked / products to output": round(wall["chunked"] / wall["products to output"], 3),
            "cumulative / chunked": round(wall["cumulative"] / wall["chunked"], 1),
        }
    memory = {}
    for mode in ("forward", "backward"):
        rows = {n: round(measured(cores, "growth", n, mode), 1) for n in LENGTHS}
        memory[mode] = {"growth, MiB": rows, "exponent": exponent(rows)}
    quadratic = {
        form: measured(cores, "in_addresses", 65536, form) for form in ("definition", "chunked")
    }
    return {
        "provenance": provenance,
        "threads": times,
        "peak memory": memory,
        "quadratic": {"length": 65536, "addresses, GiB": ADDRESSES // 2**30, **quadratic},
    }


def processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))


def table(result):
    """The numbers as a Markdown table."""
    lines = ["| threads | arm | ms, wall | ms, processor |", "|--:|:--|--:|--:|"]
    for threads, row in result["threads"].items():
        for name, wall in row["median ms, wall"].items():
            busy = row["median ms, processor"][name]
            lines.append(f"| {threads} | {name} | {wall:.1f} | {busy:.1f} |")
        lines += [f"| {threads} | {name} | {row[name]} | |" for name in row if " / " in name]
    lines += ["", "| tokens | forward, MiB | backward, MiB |", "|--:|--:|--:|"]
    memory = result["peak memory"].values()
    for length in LENGTHS:
        lines.append(f"| {length} | {' | '.join(str(x['growth, MiB'][length]) for x in memory)} |")
    lines.append(f"| exponent | {' | '.join(str(x['exponent']) for x in memory)} |")
    lines += ["", *(f"{name}: {said}" for name, said in result["quadratic"].items())]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        torch.set_num_threads(given.threads)
        name, *arguments = given.part
        print(json.dumps(PARTS[name](*(int(x) if x.isdigit() else x for x in arguments))))
        return
    result = measure()
    given.out.write_text(json.dumps(result, indent=2) + "\n")
    print(table(result))


if __name__ == "__main__":
    main()
