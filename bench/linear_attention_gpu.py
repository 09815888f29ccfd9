"""Causal linear attention with RoPE on a GPU: the fused kernel, what others need, and the roof.

``python bench/linear_attention_gpu.py [--out FILE.json] [--rounds N]`` prints a table and writes
JSON. Arms, all on (batch, seq, heads, dim) bfloat16, kernel time with a cold L2 cache:

- ``copy``: as many bytes as q, k, v and the output have, half of them read, half written: the
  roof of anything that goes through the memory once;
- ``rotary-spec``: `linear_attention`, from q, k, v to the output (and ``gradients``: backward too);
- ``fla``: `chunk_linear_attn` without normaliser, given features that are computed beforehand:
  less work, for it knows neither feature map, rotation nor denominator;
- ``rope + fla + normaliser``: the same result as ours by separate kernels.

Every arm is compared with float64 before it is timed: the first tokens of the first and the last
head with the definition, and ours also whole, with the chunked form. An arm that fails or computes
something else is a row with the reason. Exit code: 0 if ours is complete, 1 if not, 2 without GPU.
"""

import argparse
import json
import statistics
import sys

import torch

import rotary_spec as rs
from rotary_spec_backends import select

SHAPES = [(8, 4096, 16, 64), (8, 16384, 16, 64), (8, 4096, 16, 128), (8, 16384, 16, 128)]
TOKENS = 256  # of the comparison with the definition
CLOSE = 2.0**-6  # of the largest value: four roundings to bfloat16


def features(x):
    return torch.where(x > 0, x + 1, torch.exp(x))


class Case:
    def __init__(self, batch, length, heads, width):
        torch.manual_seed(0)
        shape = (batch, length, heads, width)
        self.q, self.k, self.v, self.dout = (
            torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in range(4)
        )
        self.phi_q, self.phi_k = features(self.q), features(self.k)
        self.positions = torch.arange(length, device="cuda")
        self.spec = rs.RotarySpec(width)
        self.backend = select("torch", device="cuda")
        self.bytes = 4 * self.q.numel() * self.q.element_size()

    def ours(self, q, k, v, **keywords):
        return self.backend.linear_attention(
            q, k, v, self.positions, self.spec, causal=True, seq_axis=1, **keywords
        )

    def fla(self, q, k, v):
        from fla.ops.linear_attn import chunk_linear_attn

        return chunk_linear_attn(q, k, v, scale=1.0, normalize=False)[0]

    def separate(self, q, k, v):
        phi_q, phi_k = features(q), features(k)
        turned = self.backend.rotate((phi_q, phi_k), self.positions, self.spec, seq_axis=1)
        total = (phi_q.float() * phi_k.float().cumsum(1)).sum(-1, keepdim=True)
        return (self.fla(*turned, v) / total).to(v.dtype)

    def definition(self, rotated):
        """Of the first tokens of the first and the last head, in float64."""
        heads = [0, -1]
        q, k, v = (x[:1, :TOKENS, heads].double().transpose(1, 2) for x in (self.q, self.k, self.v))
        if rotated:
            q, k, v = (x.cpu().numpy() for x in (q, k, v))
            out = rs.linear_attention(q, k, v, range(TOKENS), self.spec, causal=True)
            return torch.from_numpy(out).transpose(1, 2)
        phi_q, phi_k = (
            x[:1, :TOKENS, heads].double().transpose(1, 2) for x in (self.phi_q, self.phi_k)
        )
        return ((phi_q @ phi_k.mT).tril() @ v).transpose(1, 2).cpu()


def arms(case):
    """Name to (call, what its output should be; None for what has none of its own)."""
    half = torch.randn(case.bytes // 4, device="cuda").to(torch.bfloat16)
    other = torch.empty_like(half)
    q, k, v = case.q, case.k, case.v
    given = [x.detach().requires_grad_() for x in (q, k, v)]
    known = [x.detach().requires_grad_() for x in (case.phi_q, case.phi_k, v)]

    def gradients(function, inputs):
        return torch.autograd.grad(function(*inputs), inputs, case.dout)

    return {
        "copy": (lambda: other.copy_(half), None),
        "rotary-spec": (lambda: case.ours(q, k, v), case.definition(True)),
        "fla": (lambda: case.fla(case.phi_q, case.phi_k, v), case.definition(False)),
        "rope + fla + normaliser": (lambda: case.separate(q, k, v), case.definition(True)),
        "rotary-spec, gradients": (lambda: gradients(case.ours, given), None),
        "fla, gradients": (lambda: gradients(case.fla, known), None),
        "rope + fla + normaliser, gradients": (lambda: gradients(case.separate, given), None),
    }


def error_of(out, expected):
    """The largest error, relative to the largest value."""
    part = out[:1, :TOKENS, [0, -1]].double().cpu()
    return float((part - expected).abs().max() / expected.abs().max())


def whole_error(case):
    """Of ours against the chunked form, which a mask of ones brings about."""
    ones = torch.ones(case.k.shape[0], 1, case.k.shape[1], dtype=torch.bool, device="cuda")
    arguments = (case.q, case.k, case.v)
    expected = case.ours(*arguments, key_mask=ones).float()
    return float((case.ours(*arguments).float() - expected).abs().max() / expected.abs().max())


def measured(shape, rounds):
    from rotary_spec_bench.clock import DeviceClock, quiet

    case, rows, ready = Case(*shape), {}, {}
    for name, (call, expected) in arms(case).items():
        rows[name] = row = {"shape": shape}
        try:
            out = call()
            if expected is not None:
                row["error"] = error_of(out, expected)
            if name == "rotary-spec":
                row["error"] = max(row["error"], whole_error(case))
            torch.cuda.synchronize()
            if row.get("error", 0.0) > CLOSE:
                row["reason"] = f"computes something else: off by {row['error']:.2g}"
            else:
                ready[name] = call
        except Exception as error:  # a peer may be missing, or fail in any way
            row["reason"] = f"{type(error).__name__}: {error}".splitlines()[0]
    clock, names = DeviceClock(), list(ready)
    samples = {name: [] for name in names}
    with quiet():
        for i in range(rounds):
            order = names if i % 2 else names[::-1]
            for name, sample in zip(
                order, clock.sample([ready[n] for n in order], [1] * len(order))
            ):
                samples[name].append(sample[0])
    for name in names:
        rows[name]["seconds"] = statistics.median(samples[name])
        rows[name]["of the roof"] = (
            rows["copy"].get("seconds", float("nan")) / rows[name]["seconds"]
        )
    return {"shape": shape, "bytes": case.bytes, "method": clock.method, "rows": rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", help="a file for the JSON")
    parser.add_argument("--rounds", type=int, default=20)
    given = parser.parse_args()
    if not torch.cuda.is_available():
        print("PyTorch finds no CUDA device: nothing was measured.", file=sys.stderr)
        return 2
    from rotary_spec_bench.provenance import provenance

    results = []
    for shape in SHAPES:
        results.append(measured(shape, given.rounds))
        print(f"\n(batch, seq, heads, dim) = {shape}, bfloat16")
        for name, row in results[-1]["rows"].items():
            if "reason" in row:
                print(f"  {name:36} {row['reason']}")
                continue
            error = f"error {row['error']:.1e}" if "error" in row else ""
            print(
                f"  {name:36} {row['seconds'] * 1e6:10.1f} us   {row['of the roof']:5.2f} of the "
                f"roof   {error}"
            )
    if given.out:
        with open(given.out, "w", encoding="utf-8") as file:
            json.dump({"provenance": provenance("cuda"), "results": results}, file, indent=2)
    ours = [row for r in results for name, row in r["rows"].items() if name.startswith("rotary")]
    return 0 if all("seconds" in row for row in ours) else 1


if __name__ == "__main__":
    sys.exit(main())
