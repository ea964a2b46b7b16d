# SPDX-License-Identifier: MIT
"""Gemma 3, text and SigLIP, small, for training on a CPU; computes what transformers' does.

Parameters carry the names of Gemma3ForConditionalGeneration, shortened. The vision part ends in
soft tokens whose meaning is fixed before either part is trained (`codebook`): a soft token is the
sum of one vector for what stands in its place, one for its colour, one for its size and one for the
place. So the text part can be trained on sums that are made up, while the vision part learns to
give them.
"""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

import scenes

SOFT_TOKENS = scenes.GRID ** 2
CONFIG = dict(
    image=scenes.SIDE, patch=8, vision_hidden=192, vision_layers=5, vision_heads=3, vision_mlp=768,
    hidden=256, layers=6, heads=4, head=64, mlp=640, window=512, context=2048,
    theta_local=1e4, theta_global=1e6, epsilon=1e-6)

# Vectors of the codebook: nothing and the kinds, then colours, sizes, places.
CODE_ROWS = (1 + len(scenes.KINDS), len(scenes.COLOURS), len(scenes.SIZES), SOFT_TOKENS)
CODE_LENGTH = 8.0


def codebook():
    """[63, hidden] orthogonal vectors of length CODE_LENGTH."""
    generator = torch.Generator().manual_seed(4)
    square = torch.randn(CONFIG["hidden"], CONFIG["hidden"], generator=generator,
                         dtype=torch.float64)
    return torch.linalg.qr(square)[0][:sum(CODE_ROWS)].float() * CODE_LENGTH


def ideal_soft_tokens(codes, targets):
    """[..., 9, hidden] what the vision part should give for targets [..., 9, 3] of scenes."""
    kinds, colours, sizes, places = codes.split(CODE_ROWS)
    there = (targets[..., :1] > 0).to(codes.dtype)
    return (kinds[targets[..., 0]] + (colours[targets[..., 1]] + sizes[targets[..., 2]]) * there
            + places)


class RMSNorm(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size))

    def forward(self, x):
        y = x.float()
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + CONFIG["epsilon"])
        return (y * (1 + self.weight)).to(x.dtype)


class VisionLayer(nn.Module):
    def __init__(self):
        super().__init__()
        size, mlp = CONFIG["vision_hidden"], CONFIG["vision_mlp"]
        self.layer_norm1 = nn.LayerNorm(size, CONFIG["epsilon"])
        self.layer_norm2 = nn.LayerNorm(size, CONFIG["epsilon"])
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            nn.Linear(size, size) for _ in range(4))
        self.fc1, self.fc2 = nn.Linear(size, mlp), nn.Linear(mlp, size)

    def forward(self, x):
        batch, patches, size = x.shape
        heads = CONFIG["vision_heads"]
        h = self.layer_norm1(x)
        q, k, v = (p(h).view(batch, patches, heads, size // heads).transpose(1, 2)
                   .reshape(batch * heads, patches, size // heads)
                   for p in (self.q_proj, self.k_proj, self.v_proj))
        # written out: the backward pass of torch's fused attention is three times slower here
        weights = (q @ k.transpose(1, 2) * (size // heads) ** -.5).softmax(-1, dtype=torch.float32)
        a = (weights.to(v.dtype) @ v).view(batch, heads, patches, -1).transpose(1, 2)
        a = a.reshape(x.shape)
        x = x + self.out_proj(a)
        h = F.gelu(self.fc1(self.layer_norm2(x)), approximate="tanh")
        return x + self.fc2(h)


def _waves(side, size):
    """[side * side, size] sines and cosines of the place, to start learned positions from."""
    rates = 100.0 ** -(torch.arange(size // 4) / (size // 4))
    angles = torch.arange(side)[:, None] * rates
    line = torch.cat((angles.sin(), angles.cos()), 1)
    rows, columns = line[:, None].expand(side, side, -1), line[None].expand(side, side, -1)
    return torch.cat((rows, columns), -1).reshape(side * side, size).contiguous()


class Vision(nn.Module):
    """SigLIP, the pooling and the projector."""

    def __init__(self):
        super().__init__()
        size, patch = CONFIG["vision_hidden"], CONFIG["patch"]
        self.side = CONFIG["image"] // patch
        self.patch = nn.Linear(3 * patch * patch, size)
        self.positions = nn.Parameter(_waves(self.side, size) * .5)
        self.layers = nn.ModuleList(VisionLayer() for _ in range(CONFIG["vision_layers"]))
        self.post_layernorm = nn.LayerNorm(size, CONFIG["epsilon"])
        self.norm = RMSNorm(size)
        self.projection = nn.Parameter(torch.randn(size, CONFIG["hidden"]) / math.sqrt(size))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=1 / math.sqrt(module.in_features))
                nn.init.zeros_(module.bias)
        for layer in self.layers:  # attention starts as similarity, which is nearness here
            layer.k_proj.weight.data.copy_(layer.q_proj.weight.data)

    def forward(self, pictures):
        """[batch, 96, 96, 3] bytes to [batch, 9, hidden]"""
        batch, side, patch = len(pictures), self.side, CONFIG["patch"]
        x = (pictures.float() / 127.5 - 1).view(batch, side, patch, side, patch, 3)
        x = x.permute(0, 1, 3, 5, 2, 4).reshape(batch, side * side, -1)
        x = self.patch(x) + self.positions
        for layer in self.layers:
            x = layer(x)
        pool = side // scenes.GRID
        x = self.post_layernorm(x).view(batch, scenes.GRID, pool, scenes.GRID, pool, -1)
        return self.norm(x.mean((2, 4)).reshape(batch, SOFT_TOKENS, -1)) @ self.projection


class TextLayer(nn.Module):
    def __init__(self, index):
        super().__init__()
        size, mlp, head, heads = (CONFIG[k] for k in ("hidden", "mlp", "head", "heads"))
        self.is_global = (index + 1) % 6 == 0
        self.q_proj = nn.Linear(size, heads * head, bias=False)
        self.k_proj = nn.Linear(size, head, bias=False)
        self.v_proj = nn.Linear(size, head, bias=False)
        self.o_proj = nn.Linear(heads * head, size, bias=False)
        self.q_norm, self.k_norm = RMSNorm(head), RMSNorm(head)
        self.gate_proj = nn.Linear(size, mlp, bias=False)
        self.up_proj = nn.Linear(size, mlp, bias=False)
        self.down_proj = nn.Linear(mlp, size, bias=False)
        self.input_layernorm, self.post_attention_layernorm = RMSNorm(size), RMSNorm(size)
        self.pre_feedforward_layernorm = RMSNorm(size)
        self.post_feedforward_layernorm = RMSNorm(size)

    def attend(self, x, rope, mask):
        batch, length, _ = x.shape
        heads, head = CONFIG["heads"], CONFIG["head"]

        def turn(z):
            first, second = z[..., :head // 2], z[..., head // 2:]
            turned = z * rope[0] + torch.cat((-second, first), -1) * rope[1]
            return turned.to(x.dtype)

        q = turn(self.q_norm(self.q_proj(x).view(batch, length, heads, head)).transpose(1, 2))
        k = turn(self.k_norm(self.k_proj(x).view(batch, length, 1, head)).transpose(1, 2))
        v = self.v_proj(x).view(batch, length, 1, head).transpose(1, 2)
        scores = (q.reshape(batch, heads * length, head) @ k[:, 0].transpose(1, 2))
        scores = scores.view(batch, heads, length, length) * head ** -.5 + mask[:, None]
        weights = scores.softmax(-1, dtype=torch.float32).to(x.dtype)
        a = (weights.view(batch, heads * length, length) @ v[:, 0])
        a = a.view(batch, heads, length, head).transpose(1, 2).reshape(batch, length, -1)
        return self.o_proj(a)

    def forward(self, x, rope, mask):
        x = x + self.post_attention_layernorm(self.attend(self.input_layernorm(x), rope, mask))
        h = self.pre_feedforward_layernorm(x)
        h = self.down_proj(F.gelu(self.gate_proj(h), approximate="tanh") * self.up_proj(h))
        return x + self.post_feedforward_layernorm(h)


class Text(nn.Module):
    def __init__(self, vocabulary):
        super().__init__()
        size, head, heads = CONFIG["hidden"], CONFIG["head"], CONFIG["heads"]
        self.embed = nn.Embedding(vocabulary, size)
        nn.init.normal_(self.embed.weight, std=.04)
        self.layers = nn.ModuleList(TextLayer(i) for i in range(CONFIG["layers"]))
        self.norm = RMSNorm(size)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=.5 / math.sqrt(module.in_features))
        for layer in self.layers:  # begin quiet; attention begins by copying what is similar
            nn.init.constant_(layer.post_attention_layernorm.weight, -.7)
            nn.init.constant_(layer.post_feedforward_layernorm.weight, -.7)
            for i in range(heads):
                rows = slice(i * head, (i + 1) * head)
                if i < heads // 2:
                    layer.q_proj.weight.data[rows] = layer.k_proj.weight.data
                layer.o_proj.weight.data[:, rows] = layer.v_proj.weight.data.T * .5

    def start_words(self, words):
        """Begins the embeddings of tokens at what they mean: (row of the codebook, ids) pairs."""
        codes = codebook() / CODE_LENGTH * (.04 * math.sqrt(CONFIG["hidden"]))
        with torch.no_grad():
            for row, ids in words:
                for i in ids:
                    self.embed.weight[i] = .8 * codes[row] + .6 * self.embed.weight[i]

    def forward(self, ids, soft, soft_at, positions, mask):
        """The last hidden states [batch, length, hidden].

        ids: [batch, length]; soft: [n, hidden] goes in the place of those at the flat indices
        soft_at [n]; positions: [batch, length]; mask: [batch, length, length] true where a row
        may look at a column.
        """
        size, head = CONFIG["hidden"], CONFIG["head"]
        x = F.embedding(ids, self.embed.weight) * math.sqrt(size)
        x = x.view(-1, size).index_copy(0, soft_at, soft.to(x.dtype)).view(*ids.shape, size)
        ropes = []
        for theta in (CONFIG["theta_local"], CONFIG["theta_global"]):
            rates = 1 / theta ** (torch.arange(0, head, 2, device=ids.device) / head)
            angles = positions[:, None, :, None] * torch.cat((rates, rates))
            ropes.append((angles.cos(), angles.sin()))
        near = mask & (positions[:, :, None] - positions[:, None] < CONFIG["window"])
        masks = [torch.where(m, 0., -1e30) for m in (near, mask)]
        for layer in self.layers:
            x = layer(x, ropes[layer.is_global], masks[layer.is_global])
        return self.norm(x)
