"""Octavo's models in PyTorch, for transformers: hierarchical ones, learned boundaries, recurrences.

    AutoModelForCausalLM.from_pretrained(FOLDER, trust_remote_code=True)

Each row of a batch is one document, which begins with the begin-of-document id; what the attention
mask hides is left out. Everything here continues a document: it takes new positions and what is
remembered of those before them (None: nothing), and gives states and what is remembered now. One
pass over a whole text continues an empty document, so that it and generation, step by step, are the
same code. Units end as in evaluation: nothing is drawn, nothing dropped.

Clarity comes before speed: documents are computed one after another, recurrences and soft units
position by position.

Letters: N new positions, S all that are remembered, d and D outer and inner width, H heads, n units
that end now, p vectors per unit in the inner trunk, m vectors of a unit's memory.
"""

import inspect
import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.utils.generic import ModelOutput

ACTIVATIONS = {
    "relu2": lambda x: functional.relu(x).square(),
    "gelu": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
}


class OctavoConfig(PretrainedConfig):
    """model: the settings of Octavo's ``ModelConfig``. ids: ``bos_id``, ``unit_mark`` (the id that
    ends a word, or None), ``unit_ends`` (the first of the ids that end units, or None). scripts:
    for predictors of writing systems, how many ``pages`` the table of characters has, and the
    ``routes`` of scripts. marker: a small model whose entropy marks the ends of units: its own
    ``model`` and ``ids``, and the rule."""

    model_type = "octavo"

    def __init__(self, model=None, ids=None, scripts=None, marker=None, **others):
        self.model, self.ids = model, ids
        self.scripts, self.marker = scripts, marker
        super().__init__(**others)


# Parts of a block.


def linear(inputs: int, outputs: int, bias: bool = False) -> nn.Linear:
    return nn.Linear(inputs, outputs, bias)


class ExactLinear(nn.Linear):
    """In float32, for what decides."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x):
        return functional.linear(x.float(), self.weight.float())


class RMSNorm(nn.Module):
    def __init__(self, width: int, eps: float = 1e-6):
        super().__init__()
        self.gain, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x):
        wide = x.float()
        normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (normed * self.gain).to(x.dtype)


def rotated(x, positions, base: float, scaling: dict):
    """Rotary positions, halves convention; scaling: as of Llama 3.1. x ``[N, H, D]``."""
    D, low, high = x.shape[-1], scaling["low"], scaling["high"]
    frequencies = base ** (-torch.arange(0, D, 2, device=x.device).float() / D)
    if scaling["factor"] != 1:
        kept = (
            (scaling["original_length"] * frequencies / (2 * math.pi) - low) / (high - low)
        ).clamp(0, 1)
        frequencies = frequencies * (kept + (1 - kept) / scaling["factor"])
    angles = (positions.float()[:, None] * frequencies)[:, None]
    cosine, sine = angles.cos(), angles.sin()
    first, second = x.float().chunk(2, dim=-1)
    turned = first * cosine - second * sine, second * cosine + first * sine
    return torch.cat(turned, dim=-1).to(x.dtype)


def head_size(shape) -> int:
    return shape.head_dim or shape.width // shape.heads


def joined(past, new):
    return new if past is None else torch.cat([past, new])


class Attention(nn.Module):
    """Remembers keys and values; of a window, those that may be seen again."""

    def __init__(self, shape, causal: bool, plus_one: bool):
        super().__init__()
        d, self.heads = shape.width, shape.heads
        self.kv_heads, self.head_size = shape.kv_heads or shape.heads, head_size(shape)
        self.window, self.base, self.scaling = shape.window, shape.rope_base, shape.rope_scaling
        self.causal, self.plus_one = causal, plus_one
        inside, shared = self.heads * self.head_size, self.kv_heads * self.head_size
        self.query = linear(d, inside, shape.qkv_bias)
        self.key = linear(d, shared, shape.qkv_bias)
        self.value = linear(d, shared, shape.qkv_bias)
        self.out = linear(inside, d)
        self.query_norm = (
            RMSNorm(self.head_size, shape.norm_eps) if shape.qk_norm else nn.Identity()
        )
        self.key_norm = RMSNorm(self.head_size, shape.norm_eps) if shape.qk_norm else nn.Identity()

    def forward(self, x, positions, past, key_bias):
        """key_bias ``[N]``: what is added to the scores of the new positions, or None."""
        N = len(x)
        q = self.query_norm(self.query(x).view(N, self.heads, -1))
        k = self.key_norm(self.key(x).view(N, self.kv_heads, -1))
        v = self.value(x).view(N, self.kv_heads, -1)
        q, k = (rotated(each, positions, self.base, self.scaling) for each in (q, k))
        old_k, old_v, old_bias = past or (None, None, None)
        k, v = joined(old_k, k), joined(old_v, v)
        bias = None if key_bias is None else joined(old_bias, key_bias)
        S, groups = len(k), self.heads // self.kv_heads
        keys, values = (each.repeat_interleave(groups, dim=1) for each in (k, v))
        scores = torch.einsum("nhd,shd->hns", q.float(), keys.float()) / math.sqrt(self.head_size)
        if bias is not None:
            scores = scores + bias
        at = torch.arange(S, device=x.device)
        distance = at[S - N :, None] - at
        hidden = distance < 0 if self.causal else torch.zeros_like(distance, dtype=torch.bool)
        if self.window is not None:
            hidden = hidden | (distance.abs() >= self.window)
        scores = scores.masked_fill(hidden, -math.inf)
        if self.plus_one:  # softmax1: one more key, of score 0, whose value is nothing
            scores = torch.cat([scores, torch.zeros_like(scores[..., :1])], dim=-1)
        weights = scores.softmax(-1)[..., :S].to(v.dtype)
        mixed = torch.einsum("hns,shd->nhd", weights, values).reshape(N, -1)
        begin = 0 if self.window is None else max(S - self.window + 1, 0)
        remembered = k[begin:], v[begin:], None if bias is None else bias[begin:]
        return self.out(mixed), remembered


class GatedDelta(nn.Module):
    """Gated DeltaNet (Yang et al. 2024, 2412.06464). Remembers one matrix per head, and what its
    short convolutions reach."""

    TAPS = 4

    def __init__(self, shape, causal: bool, plus_one: bool):
        super().__init__()
        d, self.heads = shape.width, shape.heads
        inside = self.heads * head_size(shape)
        self.query, self.key, self.value = (linear(d, inside) for _ in range(3))
        self.gate, self.out = linear(d, inside), linear(inside, d)
        self.query_taps = nn.Parameter(torch.zeros(self.TAPS, inside))
        self.key_taps = nn.Parameter(torch.zeros(self.TAPS, inside))
        self.value_taps = nn.Parameter(torch.zeros(self.TAPS, inside))
        self.dt, self.beta = ExactLinear(d, self.heads), ExactLinear(d, self.heads)
        self.dt_bias = nn.Parameter(torch.zeros(self.heads))
        self.A_log = nn.Parameter(torch.zeros(self.heads))
        self.norm = RMSNorm(head_size(shape), shape.norm_eps)

    def forward(self, x, positions, past, key_bias):
        N, reach = len(x), self.TAPS - 1
        new = torch.stack([self.query(x), self.key(x), self.value(x)], dim=1)
        state, recent = past or (None, new.new_zeros(reach, *new.shape[1:]))
        inputs = torch.cat([recent, new])
        taps = torch.stack([self.query_taps, self.key_taps, self.value_taps], dim=1)
        convolved: Any = sum(taps[i] * inputs[reach - i : reach - i + N] for i in range(self.TAPS))
        convolved = functional.silu(convolved.float()).view(N, 3, self.heads, -1)
        q, k, v = convolved.unbind(1)
        q, k = (each * torch.rsqrt(each.square().sum(-1, keepdim=True) + 1e-6) for each in (q, k))
        decay = -functional.softplus(self.dt(x) + self.dt_bias) * self.A_log.float().exp()
        decay, beta = decay.exp(), self.beta(x).sigmoid()
        if state is None:
            state = q.new_zeros(self.heads, v.shape[-1], k.shape[-1])
        y = []
        for t in range(N):
            state = state * decay[t, :, None, None]
            held = torch.einsum("hvk,hk->hv", state, k[t])
            delta = beta[t, :, None] * (v[t] - held)
            state = state + delta[:, :, None] * k[t, :, None]
            y.append(torch.einsum("hvk,hk->hv", state, q[t]))
        gate = functional.silu(self.gate(x).float()).view(N, self.heads, -1)
        y = (self.norm(torch.stack(y)) * gate).reshape(N, -1).to(x.dtype)
        return self.out(y), (state, inputs[N:])


MIXERS = {"attention": Attention, "gated_delta": GatedDelta}


class UnitAttention(nn.Module):
    """Of positions to the vectors of one unit each (BLT, 2412.09871)."""

    def __init__(self, shape):
        super().__init__()
        d, self.heads, eps = shape.width, shape.heads, shape.norm_eps
        self.norm, self.memory_norm = RMSNorm(d, eps), RMSNorm(d, eps)
        self.query, self.key, self.value = linear(d, d), linear(d, d), linear(d, d)
        self.out = linear(d, d)

    def forward(self, x, memory):
        """x ``[N, d]``; memory ``[N, m, d]``: what each reads."""
        N, m, d = memory.shape
        normed = self.memory_norm(memory)
        q = self.query(self.norm(x)).view(N, self.heads, -1)
        k, v = (each(normed).view(N, m, self.heads, -1) for each in (self.key, self.value))
        scores = torch.einsum("nhd,nshd->nhs", q.float(), k.float()) / math.sqrt(d // self.heads)
        weights = scores.softmax(-1).to(v.dtype)
        return self.out(torch.einsum("nhs,nshd->nhd", weights, v).reshape(N, d))


class MLP(nn.Module):
    def __init__(self, shape):
        super().__init__()
        d, hidden = shape.width, shape.mlp_width
        if hidden is None:
            hidden = -(-8 * d // 3 // 64) * 64 if shape.gated_mlp else 4 * d
        self.activation = ACTIVATIONS[shape.activation]
        self.up = linear(d, hidden)
        self.gate = linear(d, hidden) if shape.gated_mlp else None
        self.down = linear(hidden, d)

    def forward(self, x):
        if self.gate is None:
            return self.down(self.activation(self.up(x)))
        return self.down(self.activation(self.gate(x)) * self.up(x))


class Block(nn.Module):
    def __init__(self, shape, mixer: str, causal: bool, plus_one: bool, cross_attends: bool):
        super().__init__()
        self.cross_attention = UnitAttention(shape) if cross_attends else None
        self.mixer_norm = RMSNorm(shape.width, shape.norm_eps)
        self.mlp_norm = RMSNorm(shape.width, shape.norm_eps)
        self.mixer = MIXERS[mixer](shape, causal, plus_one)
        self.mlp = MLP(shape)

    def forward(self, x, positions, past, memory, key_bias):
        if self.cross_attention is not None:
            x = x + self.cross_attention(x, memory)
        mixed, past = self.mixer(self.mixer_norm(x), positions, past, key_bias)
        x = x + mixed
        return x + self.mlp(self.mlp_norm(x)), past


class Transformer(nn.Module):
    """A stack of blocks. shape: what ``ModelConfig`` says of one."""

    def __init__(self, shape, causal=True, plus_one=False, cross_attends=False):
        super().__init__()
        kinds = [shape.mixers[i % len(shape.mixers)] for i in range(shape.layers)]
        self.blocks = nn.ModuleList(
            Block(shape, kind, causal, plus_one, cross_attends) for kind in kinds
        )

    def forward(self, x, positions, past=None, memory=None, key_bias=None):
        """x ``[N, d]``, its positions ``[N]``; memory ``[N, m, d]``: what blocks that attend to
        units read; key_bias ``[N]``: of the new positions."""
        remembered = []
        for i, block in enumerate(self.blocks):
            x, more = block(x, positions, past and past[i], memory, key_bias)
            remembered.append(more)
        return x, remembered


def coder(model, stage, layers: int) -> SimpleNamespace:
    """The shape of a stage's encoder or decoder."""
    own = {name: getattr(stage, name) for name in ("width", "heads", "window", "mixers")}
    none = dict.fromkeys(("kv_heads", "head_dim", "mlp_width"))
    return SimpleNamespace(**vars(model) | own | none | {"layers": layers})


# What ends units.


class Told(NamedTuple):
    """What a trunk is told of its new positions, each ``[N]``."""

    positions: Any
    """Place in the document, from 0."""
    ends: Any
    """A rule says that a unit of the first level ends here."""
    scripts: Any = None
    """The newest writing system so far."""


class Decision(NamedTuple):
    """Each ``[N]``, or what a kind has not."""

    ends: Any
    probability: Any = None
    offset: Any = None
    variance: Any = None
    key_bias: Any = None


FIXED = 1 << 12
"""Sums of probabilities have fixed point, so that they are the same however a text is cut."""


def fixed(x):
    return (x * FIXED).round().long()


def passing(p, before: int):
    """Where the sum of p passes a half, and one and a half, and so on; how far the sum before each
    is from a whole number; and the sum in fixed point behind all. before: what stood before."""
    steps = fixed(p)
    sums = before + steps.cumsum(0)
    whole = sums - steps
    unit = (whole + FIXED // 2) // FIXED
    ends = (sums + FIXED // 2) // FIXED > unit
    return ends, (whole - unit * FIXED) / FIXED, int(sums[-1])


class Rule(nn.Module):
    """By ids alone, or by the length of units alone."""

    def __init__(self, stage):
        super().__init__()

    def forward(self, x, told: Told, past):
        return Decision(told.ends), None


class Predictor(nn.Module):
    """An MLP on the encoder's states (dynamic pooling, 2211.09761), one for each group of writing
    systems (MAGNET, 2407.08818)."""

    def __init__(self, stage):
        super().__init__()
        d, self.routes = stage.width, len(stage.rates)
        hidden = stage.predictor_width or 4 * d
        drawn = stage.supervision in ("binomial", "hinge", "policy")
        self.sums = drawn and stage.evaluation == "sum"
        self.norm = RMSNorm(d)
        self.up = ExactLinear(d, self.routes * hidden)
        self.down = nn.Parameter(torch.zeros(self.routes, hidden))
        self.bias = nn.Parameter(torch.zeros(self.routes))
        released = stage.predictor_released
        self.hidden_bias = nn.Parameter(torch.zeros(self.routes * hidden)) if released else None
        self.route_of: list[int] = [0]

    def forward(self, x, told, past):
        hidden = self.up(self.norm(x.float()))
        if self.hidden_bias is None:
            hidden = functional.gelu(hidden, approximate="tanh")
        else:
            hidden = functional.gelu(hidden + self.hidden_bias)
        each = hidden.view(len(x), self.routes, -1)
        log_odds = torch.einsum("nkh,kh->nk", each, self.down.float()) + self.bias
        route = torch.tensor(self.route_of, device=x.device)[told.scripts]
        log_odds = log_odds.gather(1, route[:, None])[:, 0]
        if not self.sums:
            return Decision(log_odds > 0), None
        ends, _, after = passing(log_odds.sigmoid(), past or 0)
        return Decision(ends), after


class Router(nn.Module):
    """Where a state is unlike the one before (H-Net, 2507.07955)."""

    def __init__(self, stage):
        super().__init__()
        self.query = nn.Parameter(torch.eye(stage.width))
        self.key = nn.Parameter(torch.eye(stage.width))

    def forward(self, x, told, past):
        wide = x.float()
        before = torch.cat([torch.zeros_like(wide[:1]) if past is None else past, wide[:-1]])
        query, key = before @ self.query.float(), wide @ self.key.float()
        lengths = query.square().sum(-1) * key.square().sum(-1)
        cosine = (query * key).sum(-1) * torch.rsqrt(lengths.clamp(min=1e-12))
        p = ((1 - cosine) / 2).clamp(0, 1)
        p = torch.where(told.positions == 0, 1.0, p)
        return Decision(p > 0.5, p), wide[-1:]


class Frontier(nn.Module):
    """Where the expected number of frontiers passes a half (MANTa, 2212.07284)."""

    def __init__(self, stage):
        super().__init__()
        self.of_unit = stage.spread == "unit"
        self.norm, self.out = RMSNorm(stage.width), ExactLinear(stage.width, 1)
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x, told, past):
        mean, spread = past or (0, 0)
        p = (self.out(self.norm(x.float()))[:, 0] + self.bias).sigmoid()
        ends, offset, mean = passing(p, mean)
        variance = []
        steps = fixed(p * (1 - p)).tolist()
        for step, end in zip(steps, ends.tolist(), strict=True):
            variance.append(spread / FIXED)
            spread = 0 if end and self.of_unit else spread + step
        variance = torch.tensor(variance, device=x.device)
        return Decision(ends, offset=offset, variance=variance), (mean, spread)


class DeleteGate(nn.Module):
    """At what a gate keeps (MrT5, 2410.20771)."""

    GATE = -30.0

    def __init__(self, stage):
        super().__init__()
        self.scale = stage.width**-0.5
        self.norm, self.out = RMSNorm(stage.width), ExactLinear(stage.width, 1)
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x, told, past):
        log_odds = self.out(self.norm(x.float()))[:, 0] * self.scale + self.bias
        return Decision(log_odds > 0, key_bias=self.GATE * (-log_odds).sigmoid()), None


class CodingRate(nn.Module):
    """Where the coding rate of the states has grown by another equal share (ByteFlow,
    2603.03583, made causal)."""

    WINDOW, DISTORTION = 8, 0.5

    def __init__(self, stage):
        super().__init__()
        self.rate = stage.rates[0]

    def forward(self, x, told, past):
        W = self.WINDOW
        before, gained, passed = past or (x.new_zeros(W, x.shape[-1]).float(), 0, 0)
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().sum(-1, keepdim=True) + 1e-12)
        known = torch.cat([before, wide])
        # What adds little is rounded, so that no end depends on the last digit.
        gain = (self._gains(known, told.positions) * 256).round() / 256
        steps = fixed(gain)
        sums = gained + steps.cumsum(0)
        mean = ((sums - steps) / FIXED + gain + 1) / (told.positions + 2)
        p = (self.rate * gain / mean).clamp(0, 1)
        ends, _, passed = passing(p, passed)
        ends = ends | (told.positions == 0)
        return Decision(ends), (known[-W:], int(sums[-1]), passed)

    def _gains(self, known, positions):
        """What each state adds to the coding rate of the ``WINDOW`` before it, in nats."""
        W, N = self.WINDOW, len(positions)
        alpha = known.shape[-1] / (W * self.DISTORTION)
        t = torch.arange(N, device=known.device)[:, None] + W
        back = torch.arange(1, W + 1, device=known.device)
        z = known[t - back]  # zeros before the document
        matrix = alpha * z @ z.mT
        there = 1 + alpha * (positions[:, None] >= back)
        matrix = matrix.diagonal_scatter(there.to(matrix.dtype), dim1=1, dim2=2)
        vector = alpha * (z @ known[t[:, 0], :, None])[..., 0]
        left = 1 + alpha - (vector * torch.linalg.solve(matrix, vector)).sum(-1)
        return left.clamp(min=1.0).log() / 2


SEGMENTERS: dict[str, type[nn.Module]] = {
    **dict.fromkeys(
        ("whitespace", "spacelike", "word_start", "unit_mark", "stride", "marks"), Rule
    ),
    "predicted": Predictor,
    "routing": Router,
    "frontier": Frontier,
    "deletion": DeleteGate,
    "coding_rate": CodingRate,
}


def bounded(ends, positions, stage, past):
    """Boundaries ``[N]`` from the ends that a segmenter asks for: no document uses more than its
    share of units, none is longer than ``stage.max_unit``. Remembers the ends that were granted,
    and the positions since the newest of them."""
    granted, since = past or (0, 0)
    budget = torch.floor(torch.tensor(stage.capacity).float() * (positions.cpu() + 1).float()) + 2
    boundary = []
    for end, most in zip(ends.tolist(), budget.tolist(), strict=True):
        grant = end and granted < most
        boundary.append(grant or since % stage.max_unit == stage.max_unit - 1)
        granted, since = (granted + 1, 0) if grant else (granted, since + 1)
    return torch.tensor(boundary, device=ends.device), (granted, since)


# How a unit's positions become its vectors.


def cut(states, boundary) -> list:
    """States ``[.., d]``, of which the last stand at ``boundary [N]``, cut behind each boundary: a
    piece for each unit that ends, and the rest."""
    behind = boundary.nonzero()[:, 0] + 1 + len(states) - len(boundary)
    return list(torch.tensor_split(states, behind.cpu()))


class Pool(nn.Module):
    """Remembers the states of the open unit."""

    def __init__(self, stage, inner_width: int):
        super().__init__()
        self.stage, self.inner_width = stage, inner_width
        inputs, outputs = self.projected()
        linearly = stage.projection == "linear"
        self.norm: Any = RMSNorm(inputs) if linearly else None
        self.enter: Any = linear(inputs, outputs) if linearly else None
        more = inner_width - stage.width
        learned = stage.projection == "learned_pad" and more
        self.pad = nn.Parameter(torch.zeros(more)) if learned else None

    def projected(self):
        """What the step to the inner width is from and to."""
        return self.stage.width, self.inner_width

    def forward(self, x, boundary, decision: Decision, positions, encoder, past):
        """States x ``[N, d]`` to units ``[n, p, D]``. encoder: goes over whole units first, or
        None."""
        *units, rest = cut(joined(past, x), boundary)
        if encoder is not None:
            found = [self.of_whole(unit, encoder) for unit in units]
        else:
            found = [self.of_unit(unit) for unit in units]
        return (torch.stack(found) if found else None), rest

    def of_unit(self, states):
        """States ``[.., d]`` of one unit to ``[p, D]``."""
        raise NotImplementedError

    def of_whole(self, x, encoder):
        """The same of embeddings, with an encoder that looks at the whole unit."""
        return self.of_unit(encoder(x, torch.arange(len(x), device=x.device))[0])

    def project(self, pooled):
        if self.enter is not None:
            return self.enter(self.norm(pooled))
        shape = *pooled.shape[:-1], self.inner_width - self.stage.width
        if self.pad is None:
            return torch.cat([pooled.new_zeros(shape), pooled], dim=-1)
        return torch.cat([pooled, self.pad.to(pooled.dtype).expand(shape)], dim=-1)


class Last(Pool):
    def of_unit(self, states):
        return self.project(states[-1:])


class Mean(Pool):
    def of_unit(self, states):
        return self.project(states.float().mean(0, keepdim=True).to(states.dtype))


class Concat(Pool):
    """Embeddings side by side (MEGABYTE, 2305.07185): the last ``max_unit`` of the unit."""

    def projected(self):
        return self.stage.width, self.inner_width // self.stage.max_unit

    def of_unit(self, states):
        pieces = self.enter(self.norm(states))
        lacking = self.stage.max_unit - len(pieces)
        return functional.pad(pieces, (0, 0, lacking, 0)).reshape(1, -1)


class Prefix(Pool):
    """Learned vectors behind the unit's positions, which attend to them (2310.11628)."""

    def __init__(self, stage, inner_width: int):
        super().__init__(stage, inner_width)
        self.positions = nn.Parameter(torch.zeros(stage.slots, stage.width))

    def of_whole(self, x, encoder):
        both = torch.cat([x, self.positions.to(x.dtype)])
        states = encoder(both, torch.arange(len(both), device=x.device))[0]
        return self.project(states[len(x) :])


class Cross(Pool):
    """Queries of the unit attend to its positions (BLT, 2412.09871)."""

    def __init__(self, stage, inner_width: int):
        super().__init__(stage, inner_width)
        self.cross = UnitQueries(stage)

    def projected(self):
        return self.stage.width * self.stage.slots, self.inner_width

    def of_unit(self, states):
        return self.project(self.cross(states).view(1, -1))


class UnitQueries(nn.Module):
    def __init__(self, stage):
        super().__init__()
        d, self.slots, self.heads = stage.width, stage.slots, stage.heads
        self.start = linear(d, self.slots * d)
        self.query_norm, self.norm = RMSNorm(d), RMSNorm(d)
        self.query, self.key, self.value = linear(d, d), linear(d, d), linear(d, d)
        self.out = linear(d, d)

    def forward(self, x):
        """States ``[.., d]`` of a unit to ``[slots, d]``."""
        start = self.start(x.amax(0)).view(self.slots, -1)
        q = self.query(self.query_norm(start)).view(self.slots, self.heads, -1)
        normed = self.norm(x)
        k, v = (each(normed).view(len(x), self.heads, -1) for each in (self.key, self.value))
        scores = torch.einsum("shd,thd->hst", q.float(), k.float()) / math.sqrt(q.shape[-1])
        mixed = torch.einsum("hst,thd->shd", scores.softmax(-1).to(v.dtype), v)
        return start + self.out(mixed.reshape(self.slots, -1))


class Latent(Pool):
    """One learned query gathers what lies from the end before a unit's up to the position before
    its own (released HAT, 2501.10322). Remembers the newest state too."""

    def __init__(self, stage, inner_width: int):
        super().__init__(stage, inner_width)
        d, self.heads = stage.width, stage.heads
        self.latent = nn.Parameter(torch.zeros(1, d))
        self.positions_norm = RMSNorm(d)
        self.query, self.key, self.value = linear(d, d), linear(d, d), linear(d, d)

    def forward(self, x, boundary, decision, positions, encoder, past):
        # Moved by one: at a document's start, there is none before the first.
        waiting, newest = past or (x[:0], x[:0])
        moved = torch.cat([waiting, newest, x[:-1]])
        *units, rest = cut(moved, boundary)
        found = [self.of_unit(unit) for unit in units]
        return (torch.stack(found) if found else None), (rest, x[-1:])

    def of_unit(self, states):
        if not len(states):
            return self.project(torch.zeros_like(self.latent))
        q = self.query(self.latent).view(self.heads, -1)
        normed = self.positions_norm(states)
        k, v = (each(normed).view(len(states), self.heads, -1) for each in (self.key, self.value))
        scores = torch.einsum("hd,thd->ht", q.float(), k.float()) / math.sqrt(q.shape[-1])
        mixed = torch.einsum("ht,thd->hd", scores.softmax(-1).to(v.dtype), v)
        return self.project(mixed.reshape(1, -1))


class Soft(Pool):
    """Positions weighed by the probability that they belong to a unit (MANTa, 2212.07284): their
    own or one of the next ``REACH``. Remembers the sums of those, and two states."""

    REACH, FLOOR = 3, 1e-2

    def __init__(self, stage, inner_width: int):
        super().__init__(stage, inner_width)
        self.soft: Any = nn.Module()
        self.soft.mix = nn.Parameter(torch.zeros(3, stage.width))

    def forward(self, x, boundary, decision, positions, encoder, past):
        N, d, R = len(x), x.shape[-1], self.REACH
        sums, before = past or (x.new_zeros(R + 1, d + 1).float(), x.new_zeros(2, d).float())
        wide = torch.cat([before, x.float()])
        values: Any = sum(wide[2 - i : 2 - i + N] * self.soft.mix[i].float() for i in range(3))
        values = torch.cat([values, torch.ones_like(values[:, :1])], dim=-1)
        distance = decision.offset[:, None] - torch.arange(-R, R + 1, device=x.device)
        spread = decision.variance.clamp(min=self.FLOOR)[:, None]
        shares = (-distance.square() / (2 * spread)).softmax(-1)[:, R:]
        found = []
        for t, ends in enumerate(boundary.tolist()):
            sums = sums + shares[t, :, None] * values[t]
            if ends:
                found.append(sums[0, :-1] / sums[0, -1].clamp(min=1))
                sums = torch.cat([sums[1:], torch.zeros_like(sums[:1])])
        made = self.project(torch.stack(found)[:, None].to(x.dtype)) if found else None
        return made, (sums, wide[-2:])


POOLS = {
    "last": Last, "mean": Mean, "concat": Concat, "prefix": Prefix, "cross": Cross,
    "latent": Latent, "soft": Soft,
}  # fmt: skip


# How units reach the positions after them.


class Unpool(nn.Module):
    size = 1
    """Vectors that are made of each state of the inner trunk."""
    leading = 0
    """Vectors that lead each unit's positions in the decoder."""

    def __init__(self, stage, inner_width: int):
        super().__init__()
        self.stage = stage
        linearly = stage.projection == "linear"
        self.norm: Any = RMSNorm(inner_width) if linearly else None
        shape = self.piece(inner_width), self.size * stage.width
        self.leave = linear(*shape) if linearly else None
        self.null = nn.Parameter(torch.zeros(self.vectors(), stage.width))

    def piece(self, inner_width: int) -> int:
        return inner_width

    def vectors(self) -> int:
        return self.size

    def memory(self, z):
        """z ``[n, p, D]`` to memories ``[n, m, d]``."""
        d = self.stage.width
        if self.leave is None:
            return z[..., :d] if self.stage.projection == "learned_pad" else z[..., -d:]
        return self.leave(self.pieces(self.norm(z))).reshape(len(z), self.vectors(), d)

    def pieces(self, z):
        return z

    def forward(self, x, memory, boundary, since):
        """What the decoder starts from, ``[N, d]``. memory ``[N, m, d]``: what each reads; since
        ``[N]``: distance to the newest boundary, or to the document's start."""
        raise NotImplementedError


class Repeat(Unpool):
    def forward(self, x, memory, boundary, since):
        return x + memory[:, 0]


class AtEnd(Unpool):
    def forward(self, x, memory, boundary, since):
        return x + torch.where(boundary[:, None], memory[:, 0], 0)


class CrossUnpool(Unpool):
    """The decoder's blocks read memories themselves."""

    def __init__(self, stage, inner_width: int):
        self.size = stage.slots
        super().__init__(stage, inner_width)

    def forward(self, x, memory, boundary, since):
        return x


class Multilinear(Unpool):
    """One vector for all positions, and one for each distance (AU-Net, 2506.14761)."""

    DISTANCES = 16
    size = 1 + DISTANCES

    def forward(self, x, memory, boundary, since):
        here = memory.gather(1, _which(1 + since % self.DISTANCES, memory))[:, 0]
        return x + (memory[:, 0] + here)


class PrefixUnpool(Unpool):
    """A unit's vectors stand before the positions of the next, the last in place of the
    boundary."""

    def __init__(self, stage, inner_width: int):
        self.leading = stage.slots - 1
        super().__init__(stage, inner_width)

    def vectors(self):
        return self.stage.slots

    def forward(self, x, memory, boundary, since):
        return torch.where(boundary[:, None], memory[:, -1], x)


class Split(Unpool):
    """A piece for each position (MEGABYTE, 2305.07185)."""

    def __init__(self, stage, inner_width: int):
        super().__init__(stage, inner_width)
        self.pad = nn.Parameter(torch.zeros(stage.width))

    def piece(self, inner_width):
        return inner_width // self.stage.max_unit

    def vectors(self):
        return self.stage.max_unit

    def pieces(self, z):
        return z.reshape(len(z), self.stage.max_unit, -1)

    def forward(self, x, memory, boundary, since):
        x = torch.where(boundary[:, None], self.pad.to(x.dtype), x)
        which = since.clamp(max=self.stage.max_unit - 1)
        return x + memory.gather(1, _which(which, memory))[:, 0]


class Smooth(Unpool):
    """An average that trusts units by their probability (H-Net, 2507.07955), beside a projection of
    the encoder's states."""

    def __init__(self, stage, inner_width: int):
        super().__init__(stage, inner_width)
        self.skip = ExactLinear(stage.width, stage.width)
        self.bias = nn.Parameter(torch.zeros(stage.width)) if stage.end_norms else None

    def averaged(self, made, p, newest):
        """Memories ``[n, 1, d]`` as averages with the ones before; p ``[n]``; newest ``[1, d]``."""
        found, average = [], newest.float()
        for memory, share in zip(made.float(), p, strict=True):
            average = share * memory + (1 - share) * average
            found.append(average)
        return torch.stack(found).to(made.dtype)

    def forward(self, x, memory, boundary, since):
        skip = self.skip(x) if self.bias is None else self.skip(x) + self.bias
        return (memory[:, 0] + skip).to(x.dtype)


def _which(index, memory):
    return index[:, None, None].expand(-1, 1, memory.shape[-1])


UNPOOLS = {
    "repeat": Repeat, "at_end": AtEnd, "cross": CrossUnpool, "multilinear": Multilinear,
    "prefix": PrefixUnpool, "split": Split, "smooth": Smooth,
}  # fmt: skip


# Trunks.


def make_trunk(model, level: int = 0) -> nn.Module:
    return Hourglass(model, level) if level < len(model.stages) else Trunk(model)


class Trunk(nn.Module):
    """All of a flat model, or the inside of an hourglass."""

    def __init__(self, model):
        super().__init__()
        biased = bool(model.stages) and model.stages[-1].segmenter == "deletion"
        self.stack = Transformer(model, plus_one=biased)

    def forward(self, x, told: Told, past, key_bias=None):
        return self.stack(x, told.positions, past, key_bias=key_bias)


class Hourglass(nn.Module):
    """Encoder, segmenter, pool, inner trunk over units, unpool, decoder."""

    def __init__(self, model, level: int):
        super().__init__()
        stage = self.stage = model.stages[level]
        widths = [each.width for each in model.stages] + [model.width]
        inner = widths[level + 1]
        self.of_whole_units = stage.encoder_scope == "unit"
        self.within_units = stage.decoder_scope == "unit"
        self.segmenter = SEGMENTERS[stage.segmenter](stage)
        shape = coder(model, stage, stage.encoder_layers)
        if self.of_whole_units:
            shape.window = None  # a unit sees all of itself
        self.encoder = Transformer(shape, causal=not self.of_whole_units)
        self.encoder_norm = RMSNorm(stage.width) if stage.end_norms else nn.Identity()
        self.pool = POOLS[stage.pool](stage, inner)
        self.inner = make_trunk(model, level + 1)
        self.inner_norm = RMSNorm(inner) if stage.end_norms else nn.Identity()
        self.unpool = UNPOOLS[stage.unpool](stage, inner)
        shape = coder(model, stage, stage.decoder_layers)
        if self.within_units:
            shape.window = None
        self.decoder = Transformer(shape, cross_attends=stage.unpool == "cross")

    def forward(self, x, told: Told, past):
        """x ``[N, d]`` to ``[N, d]``: each position reads the newest unit complete there."""
        past, now = past or {}, {}
        encoded, encoder = x, self.encoder
        if not self.of_whole_units:
            encoded, now["encoder"] = self.encoder(x, told.positions, past.get("encoder"))
            encoded, encoder = self.encoder_norm(encoded), None
        decision, now["segmenter"] = self.segmenter(encoded, told, past.get("segmenter"))
        boundary, now["bounds"] = bounded(
            decision.ends, told.positions, self.stage, past.get("bounds")
        )
        pooled, now["pool"] = self.pool(
            encoded, boundary, decision, told.positions, encoder, past.get("pool")
        )
        newest, now["units"] = past.get("newest", self.unpool.null), past.get("units", 0)
        memory, now["inner"] = newest[None], past.get("inner")
        if pooled is not None:
            made, now["inner"] = self._inside(pooled, boundary, decision, told, past)
            if self.stage.unpool == "smooth":
                share = decision.probability[boundary].clamp(1e-4, 1 - 1e-4).tolist()
                if now["units"] == 0:
                    share[0] = 1.0
                made = self.unpool.averaged(made, share, newest)
            memory = torch.cat([memory, made])
            now["units"] += len(pooled)
        now["newest"] = memory[-1]
        read = memory[boundary.cumsum(0)]
        since, distance = [], past.get("since", -1)
        for ends in boundary.tolist():
            distance = 0 if ends else distance + 1
            since.append(distance)
        now["since"] = distance
        start = x if self.within_units else encoded
        start = self.unpool(start, read, boundary, torch.tensor(since, device=x.device))
        if self.within_units:
            decoded, now["decoder"] = self._decode(start, read, boundary, past.get("decoder"))
        else:
            decoded, now["decoder"] = self.decoder(start, told.positions, past.get("decoder"), read)
        return decoded, now

    def _inside(self, pooled, boundary, decision: Decision, told: Told, past):
        """Memories ``[n, m, d]`` of the units ``[n, p, D]`` that end now."""
        n, p, D = pooled.shape
        positions = torch.arange(n * p, device=pooled.device) + past.get("units", 0) * p
        bias = {}
        if decision.key_bias is not None:  # units stand where the positions stood that they keep
            positions = told.positions[boundary]
            bias["key_bias"] = decision.key_bias[boundary]
        inner_told = Told(positions, torch.zeros_like(positions, dtype=torch.bool))
        z, inner = self.inner(pooled.reshape(n * p, D), inner_told, past.get("inner"), **bias)
        return self.unpool.memory(self.inner_norm(z).reshape(n, p, D)), inner

    def _decode(self, x, read, boundary, past):
        """The decoder of positions that see their own unit only: what follows a boundary, with
        it."""
        place, cache = past or (0, None)
        begins = boundary.nonzero()[:, 0].cpu()
        runs = zip(torch.tensor_split(x, begins), torch.tensor_split(read, begins), strict=True)
        decoded = []
        for number, (run, memory) in enumerate(runs):
            leading = 0
            if number:  # it begins with a boundary
                leading, place, cache = self.unpool.leading, 0, None
                run = torch.cat([memory[0, :leading], run])
            if not len(run):
                continue
            positions = place + torch.arange(len(run), device=x.device)
            states, cache = self.decoder(run, positions, cache, memory)
            decoded.append(states[leading:])
            place += len(run)
        return torch.cat(decoded), (place, cache)


# From ids to logits.


class Embedding(nn.Module):
    """One learned row per id, scaled to unit variance."""

    reach = 0
    """How many ids before each are looked at."""

    def __init__(self, model, vocab_size: int, ids):
        super().__init__()
        self.rows = nn.Parameter(torch.zeros(vocab_size, model.width_of_ids))

    def forward(self, ids, positions):
        """ids ``[N]`` at their positions, the first of which are only looked back at."""
        return self.rows[ids] * self.rows.shape[1] ** 0.5

    def logits(self, x):
        return functional.linear(x, self.rows).float()


def back_by(x, positions, by: int):
    """x ``[N, ...]`` of ``by`` places before, 0 where there is none."""
    moved = torch.cat([torch.zeros_like(x[:by]), x[: len(x) - by]])[: len(x)]
    return torch.where((positions >= by).view(-1, *[1] * (x.ndim - 1)), moved, 0)


class OneHot(nn.Module):
    reach = 0

    def __init__(self, model, vocab_size: int, ids):
        super().__init__()
        self.vocab_size, self.width = vocab_size, model.width_of_ids
        self.scale = nn.Parameter(torch.ones(()))
        self.logit_scale = nn.Parameter(torch.ones(())) if model.tied_embeddings else None

    def forward(self, ids, positions):
        return functional.one_hot(ids, self.width).to(self.scale.dtype) * self.scale

    def logits(self, x):
        return x[..., : self.vocab_size].float() * self.logit_scale


class NgramConv(Embedding):
    """Mixed with causal convolutions over 2, 3 and 4 ids."""

    reach = 3
    sizes = range(2, 5)

    def __init__(self, model, vocab_size: int, ids):
        super().__init__(model, vocab_size, ids)
        d = model.width_of_ids
        self.kernels = nn.ParameterList(torch.zeros(size, d, d) for size in self.sizes)
        self.mix = nn.Parameter(torch.zeros(len(self.sizes) + 1))

    def forward(self, ids, positions):
        x = super().forward(ids, positions)
        total = self.mix[0] * x
        for share, kernel in zip(self.mix[1:], self.kernels, strict=True):
            total = total + share * sum(
                back_by(x, positions, back) @ tap for back, tap in enumerate(kernel)
            )
        return total


class NgramHash(Embedding):
    """And hashed rows of the 3 to 8 ids up to each (BLT, 2412.09871)."""

    reach = 7
    sizes = range(3, 9)

    def __init__(self, model, vocab_size: int, ids):
        super().__init__(model, vocab_size, ids)
        shape = len(self.sizes), model.hash_rows, model.width_of_ids
        self.hashed = nn.Parameter(torch.zeros(shape))
        self.bos_id = ids.bos_id

    def forward(self, ids, positions):
        x = super().forward(ids, positions).float()
        found = self.hashes(ids, positions, self.hashed.shape[1])
        for table, size, row in zip(self.hashed, self.sizes, found, strict=True):
            x = x + torch.where(self.counts(size, positions)[:, None], table[row].float(), 0)
        return x.to(self.rows.dtype)

    def hashes(self, ids, positions, rows: int):
        """The row of the n-gram that ends at each place, for each size."""
        code, bits = torch.zeros_like(ids), (1 << 32) - 1
        for back in range(self.sizes[-1]):
            code = ((code ^ back_by(ids + 1, positions, back)) * 0x9E3779B1) & bits
            if back + 1 in self.sizes:
                yield (code ^ (code >> 15)) % rows

    def counts(self, size: int, positions):
        return positions >= size - 1


class NgramPolynomial(NgramHash):
    """By the hash of the code released with BLT: 64-bit integers that wrap."""

    def hashes(self, ids, positions, rows: int):
        ids = torch.where(ids == self.bos_id, 1, ids + 4)
        code = torch.zeros_like(ids)
        for back in range(self.sizes[-1]):
            code = code * 1_000_000_007 + back_by(ids, positions, back)
            if back + 1 in self.sizes:
                yield code % rows

    def counts(self, size: int, positions):
        return torch.ones_like(positions, dtype=torch.bool)


EMBEDDINGS = {
    "table": Embedding, "bit_biased": Embedding, "one_hot": OneHot, "ngram_conv": NgramConv,
    "ngram_hash": NgramHash, "ngram_polynomial": NgramPolynomial,
}  # fmt: skip


def is_space(ids):
    return (ids == 32) | ((ids >= 9) & (ids <= 13))


def is_alphanumeric(ids):
    """ASCII letters and digits."""
    folded = ids | 32
    return ((ids >= 48) & (ids <= 57)) | ((folded >= 97) & (folded <= 122))


def is_spacelike(ids):
    return ~(is_alphanumeric(ids) | ((ids >= 128) & (ids < 192)))


def ends_of(kind: str, ids, before, about):
    """Where a rule ends a unit of the first level. before ``[N]``: the id before each, -1 where
    there is none."""
    if kind == "whitespace":
        return is_space(ids) & ~is_space(before)
    if kind == "spacelike":
        return is_spacelike(ids) & ~((before >= 0) & is_spacelike(before))
    if kind == "word_start":
        letter = is_alphanumeric(ids) | (ids >= 192)
        punctuation = (before > 32) & (before < 127) & ~is_alphanumeric(before)
        capital = (ids >= 65) & (ids <= 90) & (before >= 97) & (before <= 122)
        return (is_space(ids) & ~is_space(before)) | (letter & punctuation) | capital
    if kind == "unit_mark":
        return ids == about.unit_mark if about.unit_ends is None else ids >= about.unit_ends
    return torch.zeros_like(ids, dtype=torch.bool)


class Scripts(nn.Module):
    """The writing system of each byte: of the newest character that has one."""

    PAGE = 128

    def __init__(self, pages: int):
        super().__init__()
        self.first: Any
        self.values: Any
        self.register_buffer("first", torch.zeros(0x110000 // self.PAGE, dtype=torch.int32))
        self.register_buffer("values", torch.zeros(pages, self.PAGE, dtype=torch.uint8))

    def forward(self, known, newest: int):
        """known ``[3 + N]``: the ids, and three before them, -1 where there is none; newest: the
        system before the first."""
        byte, one, two, three = (known[3 - back : len(known) - back] for back in range(4))

        def inner(byte):
            return (byte >= 128) & (byte < 192)

        point = torch.where((byte >= 0) & (byte < 128), byte, 0)
        low = byte & 63
        point = torch.where(inner(byte) & (one >= 194) & (one < 224), (one & 31) << 6 | low, point)
        inside = inner(byte) & inner(one)
        low = (one & 63) << 6 | low
        point = torch.where(inside & (two >= 224) & (two < 240), (two & 15) << 12 | low, point)
        inside = inside & inner(two)
        low = (two & 63) << 12 | low
        point = torch.where(inside & (three >= 240) & (three < 245), (three & 7) << 18 | low, point)
        point = point.clamp(max=0x10FFFF)
        own = self.values[self.first[point // self.PAGE].long(), point % self.PAGE]
        found = []
        for script in own.tolist():
            newest = script or newest
            found.append(newest)
        return torch.tensor(found, device=known.device), newest


def settings_of(model: dict) -> SimpleNamespace:
    """The settings of a model, by attributes."""
    stages = [SimpleNamespace(**stage) for stage in model["stages"]]
    width = stages[0].width if stages else model["width"]
    return SimpleNamespace(**model | {"stages": stages, "width_of_ids": width})


class LanguageModel(nn.Module):
    """Predicts the next id at every position of a document."""

    def __init__(self, model: dict, vocab_size: int, ids: dict, scripts=None, marker=None):
        super().__init__()
        shape = settings_of(model)
        self.ids, width = SimpleNamespace(**ids), shape.width_of_ids
        self.rule = shape.stages[0].segmenter if shape.stages else None
        self.embedding = EMBEDDINGS[shape.embedding](shape, vocab_size, self.ids)
        self.trunk: Any = make_trunk(shape)
        self.norm = RMSNorm(width, shape.norm_eps)
        self.head = None if shape.tied_embeddings else linear(width, vocab_size)
        self.mtp = None
        if shape.mtp["kind"] == "heads":
            # The first of parallel heads is the next id's: a block of its own.
            beside = coder(shape, shape.stages[0], 1) if shape.stages else shape
            beside = SimpleNamespace(**vars(beside) | {"layers": 1, "mixers": ["attention"]})
            self.mtp = nn.ModuleDict({"next": Transformer(beside)})
        self.scripts = None if scripts is None else Scripts(scripts["pages"])
        if scripts is not None:
            self.trunk.segmenter.route_of = scripts["routes"]
        self.marker = None if marker is None else Marker(marker)

    def forward(self, ids, past=None):
        """Ids ``[N]`` that continue a document to float32 logits ``[N, vocab_size]``, and what is
        remembered."""
        past, now, N = past or {}, {}, len(ids)
        known = now["ids"] = joined(past.get("ids"), ids)
        length = len(known) - N
        reach = max(3, self.embedding.reach)
        # What lies before the new ones; -1 where nothing does.
        recent = functional.pad(known, (max(reach - length, 0), 0), value=-1)[-reach - N :]
        positions = torch.arange(length - reach, length + N, device=ids.device)
        x = self.embedding(recent.clamp(min=0), positions)[reach:]
        told = self._told(recent[reach - 3 :], positions[reach:], past, now)
        x, now["trunk"] = self.trunk(x, told, past.get("trunk"))
        if self.mtp is not None:
            x, now["next"] = self.mtp["next"](x, told.positions, past.get("next"))
        x = self.norm(x)
        logits = self.embedding.logits(x) if self.head is None else self.head(x).float()
        return logits, now

    def _told(self, recent, positions, past: dict, now: dict) -> Told:
        ids, before = recent[3:], recent[2:-1]
        ends = ids == self.ids.bos_id
        if self.rule is not None:
            ends = ends | ends_of(self.rule, ids, before, self.ids)
        if self.marker is not None:
            marks, now["marker"] = self.marker(ids, past.get("marker"))
            ends = ends | marks
        scripts = torch.zeros_like(ids)
        if self.scripts is not None:
            scripts, now["script"] = self.scripts(recent, past.get("script", 0))
        return Told(positions, ends, scripts)


class Marker(nn.Module):
    """A unit ends where a small model's entropy is above a threshold, or (rise) rises by more (BLT,
    2412.09871). In a text longer than ``length``, its windows begin every ``step`` ids. With
    ``breaks`` (ids), each line stands alone."""

    def __init__(self, marker: dict):
        super().__init__()
        about = SimpleNamespace(**marker)
        self.length, self.step = about.length, about.length - about.length // 2
        self.threshold, self.rise, self.breaks = about.threshold, about.rise, about.breaks
        self.bos_id = about.ids["bos_id"]
        self.model = LanguageModel(about.model, about.vocab_size, about.ids)

    def forward(self, ids, past):
        """Booleans ``[N]``, and what is remembered: the line so far, its window, the entropy after
        its newest id."""
        marks, line = [], past
        for part in self._lines(ids):
            found, line = self._entropies(part, line)
            before = line["newest"] if self.rise else torch.zeros_like(found[:1])
            held = found - torch.cat([before, found[:-1]]) if self.rise else found
            line["newest"] = found[-1:]
            marks.append(held > self.threshold)
            if self.breaks and int(part[-1]) in self.breaks:
                begin = ids.new_tensor([self.bos_id])
                found, line = self._entropies(begin, None)
                line["newest"] = found[-1:]
        return torch.cat(marks), line

    def _lines(self, ids):
        if not self.breaks:
            return [ids]
        behind = torch.isin(ids[:-1], ids.new_tensor(self.breaks)).nonzero()[:, 0] + 1
        return torch.tensor_split(ids, behind.cpu())

    def _entropies(self, ids, line):
        """Nats after each of the ids ``[N]`` that continue a line."""
        line = line or {"ids": ids[:0], "window": -1, "past": None, "newest": torch.zeros(1)}
        at, known = len(line["ids"]), torch.cat([line["ids"], ids])
        window, past, found = line["window"], line["past"], []
        while at < len(known):
            asked = 0 if at < self.length else (at - self.length) // self.step + 1
            begin = asked * self.step
            if asked != window:
                window, past = asked, None
                if begin < at:
                    _, past = self.model(known[begin:at])
            until = min(len(known), begin + self.length)
            logits, past = self.model(known[at:until], past)
            log_p = logits.log_softmax(-1)
            found.append(-(log_p.exp() * log_p).sum(-1))
            at = until
        line = {"ids": known, "window": window, "past": past, "newest": line["newest"]}
        return torch.cat(found), line


# What transformers asks.


class Documents:
    """What is remembered of the documents of a batch: the cache of ``generate``."""

    is_compileable = False
    is_croppable = False

    def __init__(self, batch: int):
        self.each: list[dict | None] = [None] * batch
        self.length = 0
        """Columns of the batch so far, hidden ones included."""

    @property
    def is_linear(self):
        return [False]

    def get_seq_length(self, layer: int = 0) -> int:
        return self.length

    def reorder_cache(self, rows):
        # Nothing that is remembered is ever changed in place.
        self.each = [self.each[row] for row in rows.tolist()]

    batch_select_indices = reorder_cache

    def batch_repeat_interleave(self, repeats: int):
        self.each = [one for one in self.each for _ in range(repeats)]


_PREPARE = getattr(GenerationMixin, "prepare_inputs_for_generation")  # noqa: B009
CACHE = "cache" if "cache" in inspect.signature(_PREPARE).parameters else "past_key_values"
"""What transformers calls the cache: in its later versions, "cache"."""


@dataclass
class OctavoOutput(ModelOutput):
    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None


class OctavoForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = OctavoConfig
    base_model_prefix = "model"
    _is_stateful = True  # what was read cannot be taken back

    def __init__(self, config):
        super().__init__(config)
        self.model = LanguageModel(
            config.model, config.vocab_size, config.ids, config.scripts, config.marker
        )
        self.post_init()

    @classmethod
    def _supports_default_dynamic_cache(cls):
        return False

    def forward(
        self, input_ids, attention_mask=None, cache=None, past_key_values=None, use_cache=None,
        labels=None, logits_to_keep=0, return_dict=None, **others,
    ):  # fmt: skip
        """input_ids ``[B, N]``, attention_mask ``[B, N]`` or with what the cache holds before them;
        logits ``[B, N, vocab_size]``, zeros where the mask hides. cache, or by its earlier name
        past_key_values: ``Documents``."""
        B, N = input_ids.shape
        cache = past_key_values if cache is None else cache
        there = torch.ones_like(input_ids) if attention_mask is None else attention_mask[:, -N:]
        there = there.bool()
        documents = Documents(B)
        logits = torch.zeros(B, N, self.config.vocab_size, device=input_ids.device)
        rows = []
        for row in range(B):
            past = None if cache is None else cache.each[row]
            own = input_ids[row][there[row]]
            if len(own):
                found, past = self.model(own, past)
                rows.append((row, found))
            documents.each[row] = past
        for row, found in rows:
            logits = logits.index_put(_places(row, there[row]), found)
        documents.length = N + (0 if cache is None else cache.length)
        loss = None
        if labels is not None:
            labels = labels.masked_fill(~there, -100)
            loss = self.loss_function(logits, labels, vocab_size=self.config.vocab_size)
        if logits_to_keep:
            logits = logits[:, -logits_to_keep:]
        output = OctavoOutput(loss, logits)
        if use_cache:
            output[CACHE] = documents
        return output if return_dict is not False else output.to_tuple()


def _places(row: int, there):
    at = there.nonzero()[:, 0]
    return torch.full_like(at, row), at
