"""Loss at equal settings beside a plain PyTorch character model on the same text:

    python benchmarks/loss_vs_torch.py [--steps 400]

Both read the same batches in the same order (packed, with segment masks), with the same
architecture, initial distributions, AdamW, schedule and clipping. Prints bits per byte over the
last tenth of the steps. Needs PyTorch (pip install torch).
"""

import argparse
import math
from dataclasses import replace

import jax
import numpy as np

from octavo import cli
from octavo.configs import presets
from octavo.training.optimizer import learning_rate
from octavo.training.trainer import Trainer


def main() -> None:
    from torch_model import F, TorchLM, torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    config = presets()["flat"]
    train = replace(config.train, steps=a.steps, seed=a.seed)
    trainer = Trainer.of(replace(config, train=train))
    stream = list(trainer.batches())
    sizes = trainer.tokenizer.bytes_per_id()
    ours = []
    with jax.set_mesh(trainer.mesh):
        state = trainer.fresh()
        for batch in stream:
            state, metrics = trainer.step(state, batch)
            ours.append((float(metrics["nats"]), float(metrics["bytes"])))

    torch.manual_seed(a.seed)
    torch.set_num_threads(2)
    model = TorchLM(config.model, config.data.length)
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    o = config.optimizer
    groups = [{"params": matrices, "weight_decay": o.weight_decay},
              {"params": vectors, "weight_decay": 0.0}]  # fmt: skip
    adamw = torch.optim.AdamW(groups, lr=1.0, betas=(o.beta1, o.beta2))
    rate = learning_rate(o, a.steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(adamw, lambda i: float(rate(i)))
    theirs = []
    for batch in stream:
        wide = {name: torch.from_numpy(values.astype(np.int64)) for name, values in batch.items()}
        logits = model(wide["tokens"], wide["positions"], wide["segment_ids"])
        weights = wide["loss_weights"].view(-1)
        nats = F.cross_entropy(logits.view(-1, 256), wide["targets"].view(-1), reduction="none")
        total = (nats * weights).sum()
        adamw.zero_grad()
        (total / weights.sum()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), o.clip_norm)
        adamw.step()
        schedule.step()
        counted = sizes[batch["targets"]] * batch["loss_weights"]
        theirs.append((float(total.detach()), float(counted.sum())))

    last = max(a.steps // 10, 1)
    for name, losses in (("octavo", ours), ("pytorch", theirs)):
        nats, size = np.sum(losses[-last:], axis=0)
        print(f"{name:8} {nats / math.log(2) / size:.4f} bits/byte over the last {last} steps")


if __name__ == "__main__":
    cli.run(main)
