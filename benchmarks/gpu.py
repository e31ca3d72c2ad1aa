"""On one NVIDIA GPU, in one run: attention kernels beside the reference, and training steps of
flat, hat, magnet and hnet of 100M beside plain PyTorch of the same shapes.

    python benchmarks/gpu.py [--rows 16 --length 4096 --models flat hat magnet hnet --out DIR]

It takes about ten minutes, and 90 GB of the GPU's memory (or --models of two at a time).

Parts are processes of their own: all compile, side by side; then each is timed alone. One that
fails or takes too long is told, and the others go on.

kernels: every kernel against the definition in float32, forward and gradients, and what attention
of flat-100m costs with one document a row, some, more than cuDNN has sequences for, and by the
reference.

octavo: whole training steps of the preset (bf16, AdamW, clipping), on the source code of Python in
rows that hold 1 and 8 documents, once segmenters have settled.

pytorch: ``torch_model.py`` under torch.compile, bf16 autocast, the fastest attention that PyTorch
has (flash or cuDNN, causal), fused AdamW, clipping; one document a row, no segment ids. Of an
hourglass the same layers around units of one fixed length (that which the preset's rate asks for),
so none of its slots is empty and nothing is cut: less than what the model does.

MFU: of the formulas of ``model/flops.py`` over the units that there were, nothing computed again
counted, in shares of the dense bf16 peak; attention as if rows were one document.
"""

import argparse
import gzip
import json
import os
import subprocess
import sys
import threading
import time
import traceback
from dataclasses import replace
from pathlib import Path

import numpy as np

from octavo import cli
from octavo.batch import Batch
from octavo.configs import presets
from octavo.configs.schema import Config
from octavo.model import flops
from octavo.model.units.room import filled_at
from octavo.tokenizers.bytes import ByteTokenizer
from octavo.tokenizers.words import MARK, WordTokenizer

UNIT = 5
"""Positions of PyTorch's units: the rate is 0.2."""
SETTLE, STEPS = 60, 20
"""Steps before the timed ones, and those."""
READY, RESULT = "READY", "RESULT "
AT_ONCE = 6
"""Parts that compile side by side."""


def config_of(name: str, rows: int, length: int, small: bool) -> Config:
    """The preset with so many rows; small: as shallow as can be, to try the script on a CPU."""
    config = presets()[f"{name}-100m"]
    model = config.model
    if small:
        stages = tuple(replace(s, width=128, heads=1) for s in model.stages)
        model = replace(model, width=256 if stages else 128, heads=1, layers=2, stages=stages)
    return replace(
        config, model=model, data=replace(config.data, length=length, batch_size=rows),
        optimizer=replace(config.optimizer, warmup_steps=10), mesh=replace(config.mesh, fsdp=1),
    )  # fmt: skip


def tokenizer_of(config: Config):
    ids = any(stage.segmenter == "unit_mark" for stage in config.model.stages)
    return WordTokenizer() if ids else ByteTokenizer()


def batches(tokenizer, rows: int, length: int, documents: int, count: int) -> list[dict]:
    """Rows of ``documents`` pieces of equal length of Python's own source code."""
    folder = Path(os.__file__).parent
    files = [path.read_bytes() for path in sorted(folder.glob("*.py"))]
    ids = tokenizer.encode(b"".join(files))
    rng, size = np.random.default_rng(0), length // documents
    starts = rng.integers(0, len(ids) - size, (count, rows, documents))
    targets = ids[starts[..., None] + np.arange(size)]
    tokens = np.roll(targets, 1, axis=-1)
    tokens[..., 0] = tokenizer.bos_id
    segments = np.broadcast_to(np.arange(documents)[:, None] + 1, targets.shape)
    positions = np.broadcast_to(np.arange(size), targets.shape)
    fields = {
        "tokens": tokens, "targets": targets, "segment_ids": segments, "positions": positions,
        "loss_weights": np.ones_like(targets), "marks": np.zeros_like(targets),
    }  # fmt: skip
    kinds = Batch.dtypes(tokenizer.dtype, length)
    fields = {k: v.reshape(count, rows, length).astype(kinds[k]) for k, v in fields.items()}
    return [{name: values[i] for name, values in fields.items()} for i in range(count)]


def wait_for_turn() -> None:
    print(READY, flush=True)
    sys.stdin.readline()


def octavo(name: str, a) -> dict:
    import jax

    from octavo.training.metrics import of_parts
    from octavo.training.trainer import Trainer

    config = config_of(name, a.rows, a.length, a.small)
    config = replace(config, execution=replace(config.execution, remat=a.remat))
    if a.unroll:
        config = replace(config, execution=replace(config.execution, scan_layers=False))
    tokenizer = tokenizer_of(config)
    rows = {n: batches(tokenizer, a.rows, a.length, n, 8) for n in (1, 8)}
    filled = None
    if config.model.stages:  # what a run counts in its corpus
        tokens = np.stack([batch["tokens"] for batch in rows[1]])
        rate = float(np.mean(tokens == MARK)) if name == "hat" else 1 / UNIT
        filled = filled_at(config.model, a.length, (rate,))
    trainer = Trainer.of(config, tokenizer, filled=filled)
    began = time.perf_counter()
    with jax.set_mesh(trainer.mesh):
        step = trainer.step.lower(trainer.abstract, trainer.abstract_batch()).compile()
        state = trainer.fresh()
    compiled = time.perf_counter() - began
    jax.block_until_ready(state)
    wait_for_turn()
    memory = step.memory_analysis()
    found = {
        "kernels": trainer.definition.backend, "compile_s": compiled,
        "gib": (memory.argument_size_in_bytes + memory.temp_size_in_bytes) / 2**30,
    }  # fmt: skip
    peak = flops.peak_flops(jax.devices()[0].device_kind)
    with jax.set_mesh(trainer.mesh):
        for documents, each in rows.items():
            each = [trainer.place(batch) for batch in each]
            settle = SETTLE if config.model.stages and documents == 1 else 3
            for i in range(2 if a.small else settle):
                state, metrics = step(state, each[i % len(each)])
            jax.block_until_ready(metrics)
            began, sums = time.perf_counter(), []
            for i in range(2 if a.small else STEPS):
                state, metrics = step(state, each[i % len(each)])
                sums.append(metrics)
            jax.block_until_ready(metrics)
            seconds = (time.perf_counter() - began) / len(sums)
            values = [{k: float(v) for k, v in metrics.items()} for metrics in sums]
            values = {k: float(np.mean([v[k] for v in values])) for k in values[0]}
            useful = trainer.useful_flops(values["targets"], of_parts(values))
            found[f"documents {documents}"] = {
                "ms": seconds * 1e3, "mb_per_s": values["bytes"] / seconds / 1e6,
                "mfu": useful / seconds / peak if peak else 0.0, "loss": values["loss"],
                "units": values.get("units/0", 0) / values["targets"],
                "slots": values.get("computed/0", 0) / values["targets"],
            }  # fmt: skip
        label = f"{name}-{a.remat}{'-unrolled' if a.unroll else ''}"
        folder = Path(a.out) / f"trace-{label}"
        with jax.profiler.trace(str(folder)):
            for i in range(2):
                state, metrics = step(state, each[i])
            jax.block_until_ready(metrics)
    with gzip.open(Path(a.out) / f"hlo-{label}.txt.gz", "wt") as file:
        file.write(step.as_text())
    found["breakdown"] = breakdown(folder, Path(a.out) / f"kernels-{label}.txt")
    return found


KINDS = {  # of kernels, by what their names hold, the first that does
    "attention": ("cudnn", "fmha", "flash", "sdpa"),
    "products": ("gemm", "cutlass", "xmma", "cublas", "dot", "nvjet", "sm90_", "wgmma"),
    "copies": ("copy", "memcpy", "memset", "transpose", "concatenate"),
    "scatters": ("scatter", "gather", "sort"),
    "reductions": ("reduce", "scan"),
}


def breakdown(folder: Path, file: Path) -> dict[str, float]:
    """Milliseconds of the device's kernels in a step, by kind; each kernel's into a file."""
    from jax.profiler import ProfileData

    (path,) = folder.rglob("*.xplane.pb")
    times: dict[str, list] = {}
    for plane in ProfileData.from_file(str(path)).planes:
        if "GPU" not in plane.name:
            continue
        for line in plane.lines:
            if "Stream" in line.name:
                for event in line.events:
                    total = times.setdefault(event.name, [0.0, 0])
                    total[0] += event.duration_ns / 2e6
                    total[1] += 1
    ranked = sorted(times.items(), key=lambda item: -item[1][0])
    lines = [f"{ms:9.3f} ms {count // 2:6d} x  {name[:150]}" for name, (ms, count) in ranked]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    kinds = dict.fromkeys((*KINDS, "other"), 0.0)
    for name, (ms, _) in times.items():
        kind = (k for k, parts in KINDS.items() if any(part in name.lower() for part in parts))
        kinds[next(kind, "other")] += ms
    return kinds


def pytorch(name: str, a) -> dict:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch_model import F, TorchHourglass, TorchLM, torch

    length = a.length if name == "flat" else a.length // UNIT * UNIT
    model, rows = config_of(name, a.rows, length, a.small).model, a.rows
    on = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    if name == "flat":
        made = TorchLM(model, length, torch.bfloat16)
    else:
        made = TorchHourglass(model, length, UNIT, torch.bfloat16)
    made = made.to(on)
    optimizer = torch.optim.AdamW(
        made.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    (batch,) = batches(ByteTokenizer(), rows, length, 1, 1)
    tokens, targets = (
        torch.from_numpy(batch[name].astype(np.int64)).to(on) for name in ("tokens", "targets")
    )
    run = torch.compile(made) if on == "cuda" else made
    flash = [SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.MATH]
    order = [flash[1], flash[0], flash[2]] if a.attention == "cudnn" else flash

    def step():
        with torch.autocast(on, torch.bfloat16), sdpa_kernel(order, set_priority=True):
            logits = run(tokens)
            loss = F.cross_entropy(logits.float().view(-1, 256), targets.view(-1))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(made.parameters(), 1.0)
        optimizer.step()
        return loss

    def finish():
        if on == "cuda":
            torch.cuda.synchronize()

    began = time.perf_counter()
    for _ in range(2):
        step()
    finish()
    compiled = time.perf_counter() - began
    if on == "cuda":
        torch.cuda.empty_cache()
    wait_for_turn()
    for _ in range(1 if a.small else 5):
        step()
    finish()
    began = time.perf_counter()
    for _ in range(2 if a.small else STEPS):
        loss = step()
    finish()
    seconds = (time.perf_counter() - began) / (2 if a.small else STEPS)
    units = None if name == "flat" else (1 / UNIT,)
    useful = flops.training_flops(model, 256, length, units) * rows * length
    peak = flops.peak_flops(torch.cuda.get_device_name()) if on == "cuda" else None
    found = {
        "kernels": a.attention, "compile_s": compiled,
        "gib": torch.cuda.max_memory_allocated() / 2**30 if on == "cuda" else 0.0,
        "documents 1": {
            "ms": seconds * 1e3, "mb_per_s": rows * length / seconds / 1e6,
            "mfu": useful / seconds / peak if peak else 0.0, "loss": float(loss.detach()),
        },
    }  # fmt: skip
    if on == "cuda":
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            step()
            finish()
        table = profile.key_averages().table(sort_by="cuda_time_total", row_limit=40)
        file = Path(a.out) / f"kernels-pytorch-{name}-{a.attention}.txt"
        file.write_text(table, encoding="utf-8")
    return found


def kernels(a) -> dict:
    from gpu_kernels import parity

    found = parity(256 if a.small else 1024)
    wait_for_turn()
    return {"parity": found}


def attention(a) -> dict:
    from gpu_kernels import compiled, costs

    programs = compiled(a.length, a.rows)
    wait_for_turn()
    return costs(programs, a.small)


def parts_of(a) -> list[str]:
    """Their names: what runs, of which preset, with what."""
    found = ["kernels", "attention"] if not a.no_kernels else []
    for name in a.models:
        found.append(f"octavo {name}")
        found.append(f"pytorch {name} --attention flash")
    found += ["pytorch flat --attention cudnn"] if "flat" in a.models else []
    return found + a.also


class Part:
    """A process that prints READY once it has compiled, waits for a line, and prints a result."""

    def __init__(self, what: str, a):
        command = [
            sys.executable, __file__, "--part", *what.split(), "--rows", str(a.rows), "--length",
            str(a.length), "--out", a.out, *(["--small"] if a.small else []),
        ]  # fmt: skip
        log = (Path(a.out) / (what.replace(" ", "_").replace("--", "") + ".log")).open("w")
        self.what, self.result, self.ready, self.ended = what, None, False, False
        self.began = time.monotonic()
        # Where XLA may try its own products too, compiling takes minutes longer, and it takes
        # cuBLAS's after all.
        flags = "--xla_gpu_enable_triton_gemm=false"
        if what == "kernels":  # many small programs
            flags += " --xla_gpu_autotune_level=0"
        environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "XLA_FLAGS": flags}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            env=environment,
        )  # fmt: skip
        self.log = log.name
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout:  # type: ignore[union-attr]
            if line.startswith(READY):
                self.ready = True
            elif line.startswith(RESULT):
                self.result = json.loads(line[len(RESULT) :])
        self.ended = True

    def until(self, done, seconds: float) -> bool:
        """Wait; a part that takes longer is stopped."""
        end = time.monotonic() + seconds
        while not (done() or self.ended) and time.monotonic() < end:
            time.sleep(0.05)
        if not (done() or self.ended):
            self.process.kill()
        return done()

    def go(self) -> None:
        self.process.stdin.write("\n")  # type: ignore[union-attr]
        self.process.stdin.flush()  # type: ignore[union-attr]


def told(part: Part) -> str:
    if part.result is None:
        tail = Path(part.log).read_text(errors="replace").strip().splitlines()[-60:]
        return f"{part.what}: FAILED\n    " + "\n    ".join(tail)
    lines = []
    for name, value in part.result.items():
        if isinstance(value, dict):
            between = "\n        " if name == "parity" else "  "
            text = between.join(f"{k} {v:.4g}" for k, v in value.items())
            lines.append(f"    {name}: {text}")
        else:
            lines.append(f"    {name}: {value if isinstance(value, str) else round(value, 2)}")
    return f"{part.what}\n" + "\n".join(lines)


def summary(results: dict[str, dict]) -> str:
    lines = ["", f"{'model':8}{'':28}{'ms':>9}{'MB/s':>9}{'MFU':>8}{'of PyTorch':>12}"]
    for model in ("flat", "hat", "magnet", "hnet"):
        theirs = [r for w, r in results.items() if w.startswith(f"pytorch {model}")]
        best = max((r["documents 1"]["mb_per_s"] for r in theirs), default=None)
        for what, result in results.items():
            if what.split()[1:2] != [model]:
                continue
            for rows in ("documents 1", "documents 8"):
                if rows in result:
                    r = result[rows]
                    ratio = f"{r['mb_per_s'] / best:12.2f}" if best else ""
                    label = f"{what[:22]} {rows[-1]} a row"
                    lines.append(
                        f"{model:8}{label:28}{r['ms']:9.1f}{r['mb_per_s']:9.2f}"
                        f"{r['mfu']:8.1%}{ratio}"
                    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--length", type=int, default=4096)
    parser.add_argument("--models", nargs="*", default=["flat", "hat", "magnet", "hnet"])
    parser.add_argument("--out", default=".")
    parser.add_argument("--also", nargs="*", default=[], help="such as 'octavo flat --remat full'")
    parser.add_argument("--no-kernels", action="store_true")
    parser.add_argument("--seconds", type=float, default=600, help="for all compiling")
    parser.add_argument("--small", action="store_true", help="tiny models: does the script run?")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--remat", default="auto", help=argparse.SUPPRESS)
    parser.add_argument("--unroll", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--attention", default="flash", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.part:
        what, *name = a.part
        run = {"octavo": octavo, "pytorch": pytorch, "kernels": kernels, "attention": attention}[
            what
        ]
        try:
            found = run(*name[:1], a)
        except Exception:
            traceback.print_exc()  # into the part's log
            sys.exit(1)
        print(RESULT + json.dumps(found), flush=True)
        return
    Path(a.out).mkdir(parents=True, exist_ok=True)
    began, waiting, parts = time.monotonic(), parts_of(a), []
    while waiting or any(not (part.ready or part.ended) for part in parts):
        busy = sum(not (part.ready or part.ended) for part in parts)
        if waiting and busy < AT_ONCE:
            parts.append(Part(waiting.pop(0), a))
        if time.monotonic() - began > a.seconds:
            break
        time.sleep(0.05)
    for part in parts:
        if not part.ready:  # what still compiles would be in the others' way
            part.process.kill()
    print(f"compiled after {time.monotonic() - began:.0f} s", flush=True)
    results = {}
    for part in parts:
        if part.ready:
            part.go()
            part.until(lambda part=part: part.result is not None, 90)
        part.process.kill()
        print(told(part), flush=True)
        if part.result is not None:
            results[part.what] = part.result
            (Path(a.out) / "results.json").write_text(json.dumps(results, indent=1))
    print(summary(results), flush=True)


if __name__ == "__main__":
    cli.run(main)
