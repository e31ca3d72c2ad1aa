"""A training step of magnet beside the published model in plain PyTorch, interleaved in one run:

    python benchmarks/magnet_vs_torch.py [--width 128 --layers 3 --batch 8 --length 512]

The PyTorch side follows the released computation (2407.08818): post-norm blocks with Transformer-XL
positions, rows grouped by script, a predictor for each, pooling by one-hot products, shapes that
follow the number of boundaries. Same widths, layers, rows and rates, two threads, AdamW. Needs
PyTorch (pip install torch).
"""

import argparse
import statistics
import time
from dataclasses import replace

import numpy as np
from step_time import ours

from octavo import cli
from octavo.batch import Batch
from octavo.configs import presets
from octavo.model.layers import Filled
from octavo.model.units.room import slots


def theirs(width: int, layers: int, heads: int, rates: dict[int, float], batch: dict):
    """One step of the published model; rows are grouped by ``batch["script"]``."""
    from torch_model import F, nn, torch

    torch.set_num_threads(2)
    size = width // heads

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.places = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.out, self.norm = nn.Linear(width, width), nn.LayerNorm(width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
            self.norm2 = nn.LayerNorm(width)

        def forward(self, x, places, content_bias, place_bias, hidden):  # x [T, B, d]
            T, B, _ = x.shape
            q, k, v = (t.view(T, B, heads, size) for t in self.qkv(x).chunk(3, -1))
            r = self.places(places).view(T, heads, size)
            content = torch.einsum("ibnd,jbnd->bnij", q + content_bias, k)
            by_place = torch.einsum("ibnd,jnd->bnij", q + place_bias, r)
            padded = F.pad(by_place, (1, 0)).view(B, heads, T + 1, T)
            by_place = padded[:, :, 1:].reshape(B, heads, T, T)
            scores = ((content + by_place) * size**-0.5).masked_fill(hidden, -torch.inf)
            mixed = torch.einsum("bnij,jbnd->ibnd", scores.softmax(-1), v)
            x = self.norm(x + self.out(mixed.reshape(T, B, width)))
            return self.norm2(x + self.down(F.gelu(self.up(x))))

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.head = nn.Embedding(259, width), nn.Linear(width, 259)
            self.before, self.units, self.after = (
                nn.ModuleList(Block() for _ in range(n)) for n in (1, layers, 1)
            )
            self.content_bias = nn.Parameter(torch.zeros(heads, size))
            self.place_bias = nn.Parameter(torch.zeros(heads, size))
            self.null, self.norm = nn.Parameter(torch.randn(1, 1, width)), nn.LayerNorm(width)
            self.predictors = nn.ModuleList(
                nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, 1))
                for _ in rates
            )
            for predictor, rate in zip(self.predictors, rates.values(), strict=True):
                nn.init.constant_(predictor[2].bias, float(np.log(rate / (1 - rate))))

        def run(self, x, blocks):
            T = len(x)
            hidden = torch.triu(torch.ones(T, T, dtype=torch.bool), 1)
            steps = 1 / 10000 ** (torch.arange(0, width, 2) / width)
            angles = torch.arange(T - 1, -1, -1.0)[:, None] * steps
            places = torch.cat([angles.sin(), angles.cos()], -1)
            for block in blocks:
                x = block(x, places, self.content_bias, self.place_bias, hidden)
            return x

        def forward(self, tokens, predictor, rate):  # tokens [B, T]
            x = self.run(self.embedding(tokens).transpose(0, 1), self.before)
            odds = predictor(x)[..., 0].T
            soft = torch.distributions.RelaxedBernoulli(torch.tensor(0.5), logits=odds).rsample()
            ends = (soft > 0.5).float() - soft.detach() + soft
            prior = torch.distributions.Binomial(ends.shape[1], probs=torch.tensor(rate))
            loss = -prior.log_prob(ends.sum(1)).mean() / ends.shape[1]
            count = int(ends.sum(1).max())
            inside = (torch.cumsum(ends, 1) - ends)[..., None] - torch.arange(count)
            weight = torch.where(inside == 0, 1 - inside, 0.0)
            weight = weight / (weight.sum(1, keepdim=True) + 1e-9)
            pooled = torch.einsum("lbd,bls->sbd", x, weight)
            pooled = torch.cat([self.null.expand(1, x.shape[1], width), pooled])
            z = self.run(self.norm(pooled), self.units)
            reads = torch.cumsum(ends.detach(), 1)[..., None] == torch.arange(count + 1)
            x = x + torch.einsum("sbd,bls->lbd", z, reads.float())
            return self.head(self.run(x, self.after)).transpose(0, 1), loss

    model = Model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    tokens, targets = (torch.from_numpy(batch[k].astype(np.int64)) for k in ("tokens", "targets"))
    script = torch.from_numpy(batch["script"])

    def run():
        total, priors = [], []
        for i, rate in enumerate(rates.values()):
            mine = script == i
            if mine.any():
                logits, prior = model(tokens[mine], model.predictors[i], rate)
                total.append(F.cross_entropy(logits.flatten(0, 1), targets[mine].flatten(),
                                             reduction="sum"))  # fmt: skip
                priors.append(prior)
        loss = sum(total) / targets.numel() + sum(priors) / len(priors)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("width", 128), ("layers", 3), ("batch", 8), ("length", 512),
                        ("rounds", 15)):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=value)
    a = parser.parse_args()
    config = presets()["magnet"]
    stage = replace(
        config.model.stages[0], width=a.width, heads=4, predictor_width=None,
        scripts=("latin", "cyrillic", "devanagari"), rates=(0.2, 0.2, 0.1, 0.08),
    )  # fmt: skip
    model = replace(
        config.model, width=a.width, heads=4, layers=a.layers, activation="gelu", stages=(stage,)
    )
    data = replace(config.data, length=a.length, batch_size=a.batch)
    config = replace(config, model=model, data=data)
    rng = np.random.default_rng(0)
    alphabets = ("abcdefgh ", "\u0430\u0431\u0432\u0433\u0434 ", "\u0915\u0916\u0917\u0918 ")
    script = np.arange(a.batch) % 3
    texts = ["".join(rng.choice(list(alphabets[i]), a.length)).encode()[: a.length] for i in script]
    tokens = np.stack([np.frombuffer(text, np.uint8) for text in texts])
    batch = {k: np.ones(tokens.shape, kind) for k, kind in Batch.dtypes(np.uint8, a.length).items()}
    batch |= {"tokens": tokens, "targets": np.roll(tokens, -1, 1)}
    batch["positions"] *= np.arange(a.length, dtype=np.uint16)
    rates = {0: 0.2, 1: 0.1, 2: 0.08}
    expected = [rates[i] * a.length for i in script]
    mean, most = (each / slots(model, a.length)[0] for each in (np.mean(expected), max(expected)))
    runs = {
        "octavo": ours(config, batch, (Filled(mean, 1.15 * most),)),
        "pytorch": theirs(a.width, a.layers, 4, rates, batch | {"script": script}),
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(a.rounds + 2):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            if round_ >= 2:  # compilation and caches
                times[name].append(time.perf_counter() - began)
    for name, seconds in times.items():
        median = statistics.median(seconds)
        print(f"{name:8} {median * 1e3:8.1f} ms   {a.batch * a.length / median / 1e3:8.1f} kB/s")
    ratios = [p / o for o, p in zip(times["octavo"], times["pytorch"], strict=True)]
    print(f"bytes/s, octavo / pytorch: {statistics.median(ratios):.2f} (above 1: Octavo is faster)")


if __name__ == "__main__":
    cli.run(main)
