"""The default model in plain PyTorch, to measure ours against. Not a dependency of Octavo."""

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
        self.down = nn.Linear(hidden, d, bias=False)
        residual = (2 * config.layers) ** -0.5
        for layer in (self.query, self.key, self.value, self.up):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
        for layer in (self.out, self.down):
            nn.init.normal_(layer.weight, std=residual * layer.in_features**-0.5)

    def forward(self, x, cosine, sine, mask):
        B, T, d = x.shape
        y = self.attention_norm(x)
        q, k, v = (
            project(y).view(B, T, self.heads, self.head_size).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        q, k = rotate(self.query_norm(q), cosine, sine), rotate(self.key_norm(k), cosine, sine)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        x = x + self.out(y.transpose(1, 2).reshape(B, T, d))
        return x + self.down(F.relu(self.up(self.mlp_norm(x))).square())


class TorchLM(nn.Module):
    """The same equations as ``octavo.model.lm.ByteLM`` with default options, and the same
    initial distributions. segment_ids None: one document a row (the fast causal kernel)."""

    def __init__(self, config: ModelConfig, length: int):
        super().__init__()
        self.embedding = nn.Embedding(256, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.width, eps=1e-6)
        self.head = nn.Linear(config.width, 256, bias=False)
        nn.init.normal_(self.embedding.weight, std=config.width**-0.5)
        nn.init.normal_(self.head.weight, std=0.1 * config.width**-0.5)
        half = torch.arange(0, config.head_size, 2) / config.head_size
        angles = torch.arange(length)[:, None] * config.rope_base**-half
        self.register_buffer("angles", angles)

    def forward(self, tokens, positions=None, segment_ids=None):
        x = self.embedding(tokens) * self.embedding.embedding_dim**0.5
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
