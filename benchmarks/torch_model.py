"""Models in plain PyTorch, to measure ours against. Not a dependency of Octavo."""

from octavo.configs.checks import ConfigError
from octavo.configs.model import ModelConfig

try:
    import torch
    import torch.nn.functional as F
    from torch import nn
except ImportError as error:
    raise ConfigError("this benchmark needs PyTorch: pip install torch.") from error


def rotate(x, cosine, sine):
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)


class Block(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        d, hidden = config.width, config.hidden_width
        self.heads, self.head_size = config.heads, config.head_size
        self.attention_norm, self.mlp_norm = nn.RMSNorm(d, eps=1e-6), nn.RMSNorm(d, eps=1e-6)
        self.query_norm = nn.RMSNorm(self.head_size, eps=1e-6)
        self.key_norm = nn.RMSNorm(self.head_size, eps=1e-6)
        self.query, self.key, self.value, self.out = (nn.Linear(d, d, bias=False) for _ in range(4))
        self.up = nn.Linear(d, hidden, bias=False)
        self.gate = nn.Linear(d, hidden, bias=False) if config.gated_mlp else None
        self.down = nn.Linear(hidden, d, bias=False)
        residual = (2 * config.layers) ** -0.5
        for layer in (self.query, self.key, self.value, self.up):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
        for layer in (self.out, self.down):
            nn.init.normal_(layer.weight, std=residual * layer.in_features**-0.5)

    def project(self, x, cosine, sine):
        y = self.attention_norm(x)
        q, k, v = (
            project(y).view(*y.shape[:2], self.heads, self.head_size).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        q, k = (
            rotate(norm(part), cosine, sine).to(v.dtype)
            for norm, part in ((self.query_norm, q), (self.key_norm, k))
        )
        return q, k, v

    def finish(self, x, mixed):
        x = x + self.out(mixed.transpose(1, 2).reshape(x.shape))
        y = self.mlp_norm(x)
        if self.gate is None:
            return x + self.down(F.relu(self.up(y)).square())
        return x + self.down(F.silu(self.gate(y)) * self.up(y))

    def forward(self, x, cosine, sine, mask, causal=True):
        q, k, v = self.project(x, cosine, sine)
        return self.finish(x, F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=causal and mask is None
        ))  # fmt: skip

    def extend(self, x, cosine, sine, keys, values, length):
        """One position x ``[B, 1, d]`` behind ``length`` others, whose keys and values ``[B, heads,
        slots, size]`` are written in place and read up to there."""
        seen = length + 1
        q, keys[:, :, length:seen], values[:, :, length:seen] = self.project(x, cosine, sine)
        mixed = F.scaled_dot_product_attention(q, keys[:, :, :seen], values[:, :, :seen])
        return self.finish(x, mixed)


def angles_of(config: ModelConfig, length: int):
    half = torch.arange(0, config.head_size, 2) / config.head_size
    return torch.arange(length)[:, None] * config.rope_base**-half


class TorchLM(nn.Module):
    """The same equations as ``octavo.model.lm.ByteLM`` of a flat model, relu2 or gated silu, and
    the same initial distributions. segment_ids None: one document a row (the fast causal kernel).
    dtype: of the residual stream."""

    def __init__(self, config: ModelConfig, length: int, dtype=torch.float32):
        super().__init__()
        self.dtype = dtype
        self.embedding = nn.Embedding(256, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.width, eps=1e-6)
        self.head = nn.Linear(config.width, 256, bias=False)
        nn.init.normal_(self.embedding.weight, std=config.width**-0.5)
        nn.init.normal_(self.head.weight, std=0.1 * config.width**-0.5)
        self.register_buffer("angles", angles_of(config, length))

    def embedded(self, tokens):
        return (self.embedding(tokens) * self.embedding.embedding_dim**0.5).to(self.dtype)

    def forward(self, tokens, positions=None, segment_ids=None):
        x = self.embedded(tokens)
        angles = self.angles if positions is None else self.angles[positions][:, None]
        mask = None
        if segment_ids is not None:
            T = tokens.shape[1]
            same = segment_ids[:, None, :, None] == segment_ids[:, None, None, :]
            mask = same & torch.ones(T, T, dtype=torch.bool).tril()
        cosine, sine = angles.cos(), angles.sin()
        for block in self.blocks:
            x = block(x, cosine, sine, mask)
        return self.head(self.norm(x))

    def init_cache(self, batch: int, slots: int) -> list:
        """Empty keys and values of each block."""
        block = self.blocks[0]
        shape = batch, block.heads, slots, block.head_size
        return [(torch.zeros(shape), torch.zeros(shape)) for _ in self.blocks]

    def extend(self, tokens, cache, length: int):
        """Logits ``[B, 256]`` behind tokens ``[B, 1]``, before which stand ``length`` others."""
        x = self.embedded(tokens)
        angles = self.angles[length : length + 1]
        cosine, sine = angles.cos(), angles.sin()
        for block, (keys, values) in zip(self.blocks, cache, strict=True):
            x = block.extend(x, cosine, sine, keys, values, length)
        return self.head(self.norm(x))[:, 0]


class TorchHourglass(TorchLM):
    """Encoder, trunk and decoder of the shapes of a config with one stage, around units of
    ``unit`` positions each: the cheapest that an hourglass at that rate can be. A unit is its last
    state; positions read the newest complete unit. A segmenter is computed, but cuts nothing:
    MAGNET's MLP (one for all scripts) or H-Net's two projections. H-Net's smoothing is left out.
    With scope "unit" (HAT), encoder and decoder run inside each unit, the decoder behind one vector
    of the unit before."""

    def __init__(self, config: ModelConfig, length: int, unit: int, dtype=torch.float32):
        (stage,) = config.stages
        encoder = config.coder(stage, stage.encoder_layers, stage.encoder_scope)
        decoder = config.coder(stage, stage.decoder_layers, stage.decoder_scope)
        super().__init__(encoder, length, dtype)
        self.unit, self.inside = unit, stage.decoder_scope == "unit"
        self.encoder = self.blocks
        self.trunk = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.decoder = nn.ModuleList(Block(decoder) for _ in range(decoder.layers))
        self.inwards = nn.Linear(stage.width, config.width, bias=False)
        self.outwards = nn.Linear(config.width, stage.width, bias=False)
        self.register_buffer("trunk_angles", angles_of(config, length // unit))
        width, self.predictor, self.router = stage.width, None, None
        if stage.segmenter == "predicted":
            hidden = stage.predictor_width or 4 * width
            self.predictor = nn.Sequential(
                nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, 1)
            )
        if stage.segmenter == "routing":
            self.router = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(2))

    def run(self, blocks, x, angles, causal=True):
        for block in blocks:
            x = block(x, angles.cos(), angles.sin(), None, causal)
        return x

    def forward(self, tokens):
        (B, T), n = tokens.shape, self.unit
        start = self.embedded(tokens)
        shape = (B * T // n, n, -1) if self.inside else (B, T, -1)
        x = self.run(
            self.encoder, start.reshape(shape), self.angles[: shape[1]], causal=not self.inside
        )
        x = x.reshape(B, T, -1)
        odds = 1
        if self.predictor is not None:
            odds = torch.sigmoid(self.predictor(x))
        if self.router is not None:
            query, key = self.router
            odds = F.cosine_similarity(query(x[:, :-1]), key(x[:, 1:]), dim=-1)
            odds = F.pad(odds, (1, 0))[..., None]
        units = self.inwards((x * odds).to(x.dtype)[:, n - 1 :: n])
        z = self.outwards(self.run(self.trunk, units, self.trunk_angles))
        before = F.pad(z, (0, 0, 1, 0))[:, :-1]  # of the unit before
        if self.inside:
            prefix = before.reshape(B * T // n, 1, -1)
            x = torch.cat((prefix, start.reshape(shape)), dim=1).to(x.dtype)
            x = self.run(self.decoder, x, self.angles[: n + 1])[:, 1:].reshape(B, T, -1)
        else:
            x = x + before.repeat_interleave(n, dim=1)
            x = self.run(self.decoder, x.to(start.dtype), self.angles)
        return self.head(self.norm(x))
