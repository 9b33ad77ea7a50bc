"""The published formulation of agent attention: what the backbones are compared with.

Written from the equations, as plainly as they are published: every bias table is resized in space
and between agents in each forward, the biases are dense and repeated over the batch, and softmax
is not fused with the products around it. Parameters and state-dict keys are the backbone's own.
No forward of the backbone is called, so that changes there change nothing here.

Shape letters: see ``agent_attention.mixers.agent``; M is the side of a window, G their number.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from agent_attention import AgentAttention, AgentPVT, AgentSwinTransformer
from agent_attention.layers import DropPath
from agent_attention.mixers.reduced import SpatialReductionAttention
from agent_attention.mixers.windows import WindowAttention

Pair = tuple[int, int]
_PVT_STRIDES = (4, 8, 16, 32)  # of each stage's map, in pixels of the image
_APART = -100.0  # logit between pixels that a shift brought together


def as_published(model: nn.Module) -> nn.Module:
    """The plain formulation of a backbone, on a deep copy of its weights.

    Raises:
        TypeError: if ``model`` is neither an AgentPVT nor an AgentSwinTransformer.
    """
    if isinstance(model, AgentPVT):
        return PublishedPVT(copy.deepcopy(model))
    if isinstance(model, AgentSwinTransformer):
        return PublishedSwin(copy.deepcopy(model))
    raise TypeError(f"there is no published form of {type(model).__name__}")


class Adopted(nn.Module):
    """Takes the parameters, buffers and submodules of a module under their names; no caches."""

    def __init__(self, source: nn.Module) -> None:
        super().__init__()
        kept = source.state_dict().keys()
        for name, parameter in source.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in source.named_buffers(recurse=False):
            if name in kept:
                self.register_buffer(name, buffer)
        for name, child in source.named_children():
            self.add_module(name, child)
        self.training = source.training


# --- operations


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, dropout: float) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v, one operation after the other."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    if bias is not None:
        scores = scores + bias
    return F.dropout(scores.softmax(dim=-1), dropout) @ v


def interpolate(x: Tensor, size: Pair) -> Tensor:
    """Bilinear, half-pixel centres: (B, C, H, W) -> (B, C, *size)."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def as_map(x: Tensor, size: Pair) -> Tensor:
    """(B, N, C) -> (B, C, H, W)."""
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], *size)


def as_tokens(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, N, C)."""
    return x.flatten(2).transpose(1, 2)


def heads_of(x: Tensor, heads: int) -> Tensor:
    """(B, N, C) -> (B, h, N, d)."""
    return x.reshape(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def resized(table: Tensor, size: Pair, base: int, agents: Pair) -> Tensor:
    """A bias table (h, P, Hs, Ws), resized in space and then between agents: (h, N, n)."""
    spatial = interpolate(table, size).flatten(2).transpose(1, 2)  # (h, N, P)
    grids = spatial.reshape(spatial.shape[0], -1, base, base)  # (h, N, p, p)
    return interpolate(grids, agents).flatten(2)


# --- attention


class PublishedAgentAttention(Adopted):
    """Agent attention over tokens (B, N, C) of a map."""

    q: nn.Linear
    kv: nn.Linear
    qkv: nn.Linear
    proj: nn.Linear
    proj_drop: nn.Dropout
    dwc: nn.Conv2d
    an_bias: nn.Parameter
    na_bias: nn.Parameter
    ah_bias: nn.Parameter
    aw_bias: nn.Parameter
    ha_bias: nn.Parameter
    wa_bias: nn.Parameter

    def __init__(self, source: AgentAttention) -> None:
        super().__init__(source)
        self.heads = source.num_heads
        self.base = source.base_grid
        self.agents = (int(source.agent_shape[0]), int(source.agent_shape[1]))
        self.attn_drop = source.attn_drop
        self.joint = hasattr(source, "qkv")

    def forward(self, x: Tensor, size: Pair) -> Tensor:
        q, k, v = self.project(x)  # each (B, N, C)
        pooled = as_tokens(F.adaptive_avg_pool2d(as_map(q, size), self.agents))  # (B, n, C)
        v_map = as_map(v, size)
        q, k, v, agents = (heads_of(t, self.heads) for t in (q, k, v, pooled))
        gather, serve = self.biases(x.shape[0], size)
        dropout = self.attn_drop if self.training else 0.0
        agent_v = attend(agents, k, v, gather, dropout)  # (B, h, n, d)
        out = attend(q, agents, agent_v, serve, dropout)  # (B, h, N, d)
        out = out.transpose(1, 2).reshape(x.shape) + as_tokens(self.dwc(v_map))
        return self.proj_drop(self.proj(out))

    def project(self, x: Tensor) -> tuple[Tensor, ...]:
        if self.joint:
            return self.qkv(x).chunk(3, dim=-1)
        return (self.q(x), *self.kv(x).chunk(2, dim=-1))

    def biases(self, batch: int, size: Pair) -> tuple[Tensor, Tensor]:
        """(B, h, n, N) of aggregation and (B, h, N, n) of broadcast: eight resizes."""
        where = (size, self.base, self.agents)
        by_agent = (self.ah_bias + self.aw_bias)[0]  # (h, P, Hs, Ws)
        by_token = (self.ha_bias + self.wa_bias)[0].permute(0, 3, 1, 2)  # (h, P, Hs, Ws)
        gather = resized(self.an_bias, *where) + resized(by_agent, *where)  # (h, N, n)
        serve = resized(self.na_bias, *where) + resized(by_token, *where)  # (h, N, n)
        return gather.transpose(1, 2).repeat(batch, 1, 1, 1), serve.repeat(batch, 1, 1, 1)


class PublishedWindowAttention(Adopted):
    """Shifted-window softmax attention: bias gathered and mask built in each forward."""

    qkv: nn.Linear
    proj: nn.Linear
    proj_drop: nn.Dropout
    relative_position_bias_table: nn.Parameter
    relative_position_index: Tensor

    def __init__(self, source: WindowAttention) -> None:
        super().__init__(source)
        self.heads, self.attn_drop = source.num_heads, source.attn_drop
        self.window, self.shift = source.window, source.shift

    def forward(self, x: Tensor, size: Pair) -> Tensor:
        (height, width), m = size, self.window
        x = F.pad(x.unflatten(1, size), (0, 0, 0, -width % m, 0, -height % m))  # (B, H', W', C)
        padded = (x.shape[1], x.shape[2])
        if self.shift:
            x = x.roll((-self.shift, -self.shift), dims=(1, 2))
        out = self.attend(cut(x, m), padded)  # (B, G, M*M, C)
        out = joined(out, padded, m)
        if self.shift:
            out = out.roll((self.shift, self.shift), dims=(1, 2))
        return self.proj_drop(out[:, :height, :width].reshape(x.shape[0], height * width, -1))

    def attend(self, x: Tensor, padded: Pair) -> Tensor:
        """Windows (B, G, M*M, C) -> (B, G, M*M, C)."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))  # (B, G, M*M, 3, h, d)
        q, k, v = qkv.permute(3, 0, 1, 4, 2, 5)  # each (B, G, h, M*M, d)
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)
        if self.shift:
            bias = bias + self.mask(padded, x.device)
        out = attend(q, k, v, bias, self.attn_drop if self.training else 0.0)
        return self.proj(out.transpose(2, 3).flatten(3))

    def mask(self, padded: Pair, device: torch.device) -> Tensor:
        """0 within a region of the rolled map, -100 between two: (G, 1, M*M, M*M)."""
        regions = torch.zeros(1, *padded, 1, device=device)
        bounds = (
            slice(0, -self.window),
            slice(-self.window, -self.shift),
            slice(-self.shift, None),
        )
        for number, (rows, columns) in enumerate((r, c) for r in bounds for c in bounds):
            regions[:, rows, columns] = number
        region = cut(regions, self.window)[0, :, :, 0]  # (G, M*M)
        apart = region[:, None, :, None] != region[:, None, None, :]
        return apart.float() * _APART


def cut(x: Tensor, m: int) -> Tensor:
    """A map (B, H', W', C) as windows (B, G, M*M, C)."""
    batch, height, width, dim = x.shape
    x = x.reshape(batch, height // m, m, width // m, m, dim).transpose(2, 3)
    return x.reshape(batch, -1, m * m, dim)


def joined(x: Tensor, size: Pair, m: int) -> Tensor:
    """Windows (B, G, M*M, C) as a map (B, H', W', C)."""
    batch, dim = x.shape[0], x.shape[-1]
    x = x.reshape(batch, size[0] // m, size[1] // m, m, m, dim).transpose(2, 3)
    return x.reshape(batch, *size, dim)


class PublishedReduction(Adopted):
    """Softmax attention to a map reduced R times in height and width."""

    q: nn.Linear
    kv: nn.Linear
    proj: nn.Linear
    proj_drop: nn.Dropout
    sr: nn.Conv2d
    norm: nn.LayerNorm

    def __init__(self, source: SpatialReductionAttention) -> None:
        super().__init__(source)
        self.heads, self.attn_drop = source.num_heads, source.attn_drop
        self.ratio = source.sr_ratio

    def forward(self, x: Tensor, size: Pair) -> Tensor:
        reduced = self.norm(as_tokens(self.sr(as_map(x, size)))) if self.ratio > 1 else x
        q, k, v = (heads_of(t, self.heads) for t in (self.q(x), *self.kv(reduced).chunk(2, -1)))
        out = attend(q, k, v, None, self.attn_drop if self.training else 0.0)
        return self.proj_drop(self.proj(out.transpose(1, 2).reshape(x.shape)))


# --- backbones


class PublishedMlp(Adopted):
    """Linear, GELU, linear, with dropout."""

    fc1: nn.Linear
    fc2: nn.Linear
    drop: nn.Dropout

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(F.gelu(self.fc1(x)))))


class PublishedBlock(Adopted):
    """Pre-norm transformer block."""

    norm1: nn.LayerNorm
    norm2: nn.LayerNorm
    drop_path: DropPath

    def __init__(self, source: nn.Module) -> None:
        super().__init__(source)
        self.attn = published_attention(source.get_submodule("attn"))
        self.mlp = PublishedMlp(source.get_submodule("mlp"))

    def forward(self, x: Tensor, size: Pair) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), size))
        return x + self.drop_path(self.mlp(self.norm2(x)))


def published_attention(attn: nn.Module) -> nn.Module:
    if isinstance(attn, AgentAttention):
        return PublishedAgentAttention(attn)
    if isinstance(attn, WindowAttention):
        return PublishedWindowAttention(attn)
    assert isinstance(attn, SpatialReductionAttention), type(attn)
    return PublishedReduction(attn)


class PublishedPVT(Adopted):
    """Agent-PVT: images (B, 3, H, W) -> one map a stage."""

    def __init__(self, source: AgentPVT) -> None:
        super().__init__(source)
        self.out_indices, self.stages = source.out_indices, source.num_stages
        for i in range(1, self.stages + 1):
            blocks = self.get_submodule(f"block{i}").children()
            self.add_module(f"block{i}", nn.ModuleList(map(PublishedBlock, blocks)))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        outs = []
        for i in range(1, self.stages + 1):
            x = self.get_submodule(f"patch_embed{i}.proj")(x)
            size = (x.shape[2], x.shape[3])
            x = self.get_submodule(f"patch_embed{i}.norm")(as_tokens(x))  # (B, N, C)
            x = self.get_submodule(f"pos_drop{i}")(x + self.position(i, size))
            for block in self.get_submodule(f"block{i}").children():
                x = block(x, size)
            x = as_map(x, size).contiguous()
            if i - 1 in self.out_indices:
                outs.append(x)
        return tuple(outs)

    def position(self, stage: int, size: Pair) -> Tensor:
        """Position embedding (1, N, C), resized to a map of ``size``."""
        table = self.get_parameter(f"pos_embed{stage}")  # (1, Hs*Ws, C)
        side = round(table.shape[1] ** 0.5)
        return as_tokens(interpolate(as_map(table, (side, side)), size))


class PublishedSwin(Adopted):
    """Agent-Swin: images (B, 3, H, W) -> one normalised map a stage."""

    pos_drop: nn.Dropout

    def __init__(self, source: AgentSwinTransformer) -> None:
        super().__init__(source)
        self.out_indices, self.stages = source.out_indices, source.num_stages
        for i in range(self.stages):
            stage = self.get_submodule(f"layers.{i}")
            blocks = stage.get_submodule("blocks").children()
            stage.add_module("blocks", nn.ModuleList(map(PublishedBlock, blocks)))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = F.pad(x, (0, -x.shape[3] % 4, 0, -x.shape[2] % 4))
        x = self.get_submodule("patch_embed.proj")(x)
        size = (x.shape[2], x.shape[3])
        x = self.pos_drop(self.get_submodule("patch_embed.norm")(as_tokens(x)))
        outs = []
        for i in range(self.stages):
            for block in self.get_submodule(f"layers.{i}.blocks").children():
                x = block(x, size)
            if i in self.out_indices:
                outs.append(as_map(self.get_submodule(f"norm{i}")(x), size).contiguous())
            if i < self.stages - 1:
                x, size = self.merged(f"layers.{i}.downsample", x, size)
        return tuple(outs)

    def merged(self, name: str, x: Tensor, size: Pair) -> tuple[Tensor, Pair]:
        """Four neighbours into one token: (B, N, C) -> (B, N/4, 2C) and the new size."""
        x = F.pad(x.unflatten(1, size), (0, 0, 0, size[1] % 2, 0, size[0] % 2))
        corners = [x[:, row::2, column::2] for row, column in ((0, 0), (1, 0), (0, 1), (1, 1))]
        x = torch.cat(corners, -1)  # (B, H'/2, W'/2, 4C)
        new_size = (x.shape[1], x.shape[2])
        x = self.get_submodule(f"{name}.norm")(x.flatten(1, 2))
        return self.get_submodule(f"{name}.reduction")(x), new_size
