"""Mixers written out step by step and head by head: what the tests compare with.

Each of ``DEFINITIONS`` is the equation of a mixer of ``MIXERS`` between its projections: tokens q,
k, v (B, N, C) of a map of ``size`` (H, W) to tokens (B, N, C).
"""

from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from agent_attention import AgentAttention

Pair = tuple[int, int]

# --- the definition: tensors are (B, N, C), maps (B, C, H, W), biases (h, n, N) and (h, N, n)


def softmax(scores: Tensor) -> Tensor:
    powers = (scores - scores.amax(-1, keepdim=True)).exp()
    return powers / powers.sum(-1, keepdim=True)


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    """Softmax attention, one head after the other."""
    outs = []
    for head in range(heads):
        width = q.shape[-1] // heads
        part = slice(head * width, (head + 1) * width)
        scores = q[..., part] @ k[..., part].transpose(1, 2) / width**0.5
        outs.append(softmax(scores if bias is None else scores + bias[head]) @ v[..., part])
    return torch.cat(outs, -1)


def average(x: Tensor, shape: Pair) -> Tensor:
    """Means of a map over a grid of cells, which overlap where sides do not divide: (B, n, C)."""
    (rows, columns), (height, width) = shape, x.shape[-2:]
    cells = []
    for i in range(rows):
        for j in range(columns):
            top, bottom = i * height // rows, -(-(i + 1) * height // rows)
            left, right = j * width // columns, -(-(j + 1) * width // columns)
            cells.append(x[:, :, top:bottom, left:right].mean((2, 3)))
    return torch.stack(cells, 1)


def depthwise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """3x3 convolution of each channel by itself, as nine shifted maps."""
    height, width = x.shape[-2:]
    padded = F.pad(x, (1, 1, 1, 1))
    out = bias[:, None, None].expand_as(x)
    for i in range(3):
        for j in range(3):
            shifted = padded[:, :, i : i + height, j : j + width]
            out = out + weight[:, :, i, j][None, :, :, None] * shifted
    return out


def interpolate(x: Tensor, size: Pair) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def resized_bias(block: Tensor, cross: Tensor, p: int, size: Pair, shape: Pair) -> Tensor:
    """(h, P, 7, 7) and (h, P, Hs, Ws), resized in space and then in agents: (h, N, n)."""
    spatial = interpolate(block, size) + interpolate(cross, size)  # (h, P, H, W)
    heads, count = spatial.shape[0], size[0] * size[1]
    grids = spatial.permute(0, 2, 3, 1).reshape(heads * count, 1, p, p)
    return interpolate(grids, shape).reshape(heads, count, -1)


def biases(attn: AgentAttention, size: Pair) -> tuple[Tensor, Tensor]:
    p, shape = attn.base_grid, attn.agent_shape
    cross = (attn.ah_bias + attn.aw_bias)[0]
    b1 = resized_bias(attn.an_bias, cross, p, size, shape).transpose(1, 2)
    cross = (attn.ha_bias + attn.wa_bias)[0].permute(0, 3, 1, 2)
    return b1, resized_bias(attn.na_bias, cross, p, size, shape)


def definition(
    attn: AgentAttention, x: Tensor, size: Pair, both: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """Agent attention from the weights of a module, with its biases or those given."""
    w, dim, heads = dict(attn.named_parameters()), x.shape[-1], attn.num_heads
    if "qkv.weight" in w:
        weight, bias = w["qkv.weight"], w.get("qkv.bias")
    else:
        weight = torch.cat([w["q.weight"], w["kv.weight"]])
        bias = torch.cat([w["q.bias"], w["kv.bias"]]) if "q.bias" in w else None
    all_three = x @ weight.T if bias is None else x @ weight.T + bias
    q, k, v = all_three[..., :dim], all_three[..., dim : 2 * dim], all_three[..., 2 * dim :]

    b1, b2 = both or biases(attn, size)
    agents = average(q.transpose(1, 2).unflatten(2, size), attn.agent_shape)
    v_a = attend(agents, k, v, heads, b1)
    out = attend(q, agents, v_a, heads, b2)
    v_map = v.transpose(1, 2).unflatten(2, size)
    out = out + depthwise(v_map, w["dwc.weight"], w["dwc.bias"]).flatten(2).transpose(1, 2)
    return out @ w["proj.weight"].T + w["proj.bias"]


# --- the further mixers: w is (h, N, N), from keys (columns) to queries (rows)


def places(size: Pair) -> list[Pair]:
    """(row, column) of each token."""
    return list(product(range(size[0]), range(size[1])))


def as_map(x: Tensor, size: Pair) -> Tensor:
    return x.transpose(1, 2).unflatten(2, size)


def with_detail(mixer: Any, out: Tensor, v: Tensor, size: Pair) -> Tensor:
    if not mixer.has_detail:
        return out
    detail = depthwise(as_map(v, size), mixer.dwc.weight, mixer.dwc.bias)
    return out + detail.flatten(2).transpose(1, 2)


def weighted_mean(w: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """sigmoid(q) Σ exp(k + w) v / Σ exp(k + w), keys (B, N, C) or (B, N, h)."""
    outs, heads = [], len(w)
    for i in range(heads):
        keys, values = (x.chunk(heads, -1)[i].unsqueeze(1) for x in (k, v))  # (B, 1, N, d)
        weights = torch.softmax(keys + w[i].unsqueeze(-1), 2)  # (B, N, N, d)
        outs.append((weights * values).sum(2))
    return torch.sigmoid(q) * torch.cat(outs, -1)


def place_products(mixer: Any, size: Pair) -> Tensor:
    u, z = (interpolate(t, size).flatten(2) for t in (mixer.place_q_bias, mixer.place_k_bias))
    return torch.einsum("hrt,hrs->hts", u, z)


def aft_full(mixer: Any, q: Tensor, k: Tensor, v: Tensor, size: Pair) -> Tensor:
    return weighted_mean(place_products(mixer, size), q, k, v)


def aft_local(mixer: Any, q: Tensor, k: Tensor, v: Tensor, size: Pair) -> Tensor:
    s = mixer.window
    near = [[abs(i - m) < s and abs(j - n) < s for m, n in places(size)] for i, j in places(size)]
    return weighted_mean(place_products(mixer, size) * torch.tensor(near), q, k, v)


def aft_conv(mixer: Any, q: Tensor, k: Tensor, v: Tensor, size: Pair) -> Tensor:
    kernel, heads = mixer.place_bias, mixer.num_heads
    centred = kernel - kernel.mean((1, 2), keepdim=True)
    normed = centred / (centred.square().mean((1, 2), keepdim=True) + 1e-6).sqrt()
    kernel, pad = mixer.place_gain * normed + mixer.place_shift, kernel.shape[-1] // 2
    outside = kernel.new_zeros(heads)
    w = [
        kernel[:, pad + m - i, pad + n - j] if max(abs(m - i), abs(n - j)) <= pad else outside
        for i, j in places(size)
        for m, n in places(size)
    ]
    count = len(places(size))
    return weighted_mean(torch.stack(w, 1).unflatten(1, (count, count)), q, k, v)


def aft_simple(mixer: Any, q: Tensor, k: Tensor, v: Tensor, size: Pair) -> Tensor:
    return weighted_mean(q.new_zeros(1, q.shape[1], q.shape[1]), q, k, v)


def rms(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def by_head(mixer: Any, *tensors: Tensor) -> Any:
    return zip(*(x.chunk(mixer.num_heads, -1) for x in tensors), strict=True)


def norm(mixer: Any, q: Tensor, k: Tensor, v: Tensor, size: Pair) -> Tensor:
    def phi(x: Tensor) -> Tensor:
        return torch.where(x > 0, x, x.exp() - 1) + (mixer.kernel == "1+elu")

    outs = [phi(a) @ phi(b).transpose(1, 2) @ c / k.shape[1] for a, b, c in by_head(mixer, q, k, v)]
    return rms(torch.cat(outs, -1))


def diag(mixer: Any, q: Tensor, k: Tensor, v: Tensor, size: Pair) -> Tensor:
    m = mixer.window
    windows = [(i // m, j // m) for i, j in places(size)]
    same = torch.tensor([[a == b for b in windows] for a in windows])
    outs = []
    for a, b, c in by_head(mixer, q, k, v):
        scores = a @ b.transpose(1, 2) / a.shape[-1] ** 0.5
        if mixer.kernel == "relu":
            outs.append((scores.clamp(min=0) * same) @ c)
        else:
            outs.append(torch.softmax(scores.masked_fill(~same, -torch.inf), -1) @ c)
    out = torch.cat(outs, -1)
    return rms(out) if mixer.kernel == "relu" else out


def focused(mixer: Any, q: Tensor, k: Tensor, v: Tensor, size: Pair) -> Tensor:
    def phi(x: Tensor) -> Tensor:
        u = (x.clamp(min=0) + 1e-6) / (1 + mixer.scale.exp()).log()
        cubed = u**mixer.factor
        return u.norm(dim=-1, keepdim=True) * cubed / cubed.norm(dim=-1, keepdim=True)

    r = mixer.reduction
    table = mixer.positional_encoding.unflatten(1, mixer.table_shape).permute(0, 3, 1, 2)
    reduced = (size[0] // r, size[1] // r)
    if tuple(table.shape[2:]) != reduced:
        table = F.interpolate(table, reduced, mode="bicubic", align_corners=False)
    k = k + table.flatten(2).transpose(1, 2)
    outs = []
    for a, b, c in by_head(mixer, phi(q), phi(k), v):
        scores = a @ b.transpose(1, 2) / k.shape[1]
        outs.append(scores @ c / (scores.sum(-1, keepdim=True) + 1e-6))
    if v.shape[1] != q.shape[1]:
        v = F.interpolate(v.transpose(1, 2), q.shape[1], mode="linear").transpose(1, 2)
    pad, groups = mixer.dwc.padding, mixer.dwc.groups
    details = [
        F.conv2d(as_map(x, size), mixer.dwc.weight, mixer.dwc.bias, padding=pad, groups=groups)
        for x in v.chunk(mixer.num_heads, -1)
    ]
    return torch.cat(outs, -1) + torch.cat(details, 1).flatten(2).transpose(1, 2)


def one_stripe(branch: Any, q: Tensor, k: Tensor, v: Tensor, size: Pair) -> Tensor:
    """Attention of all pixels of the padded map in which other stripes are masked out."""
    m, vertical = branch.window, branch.vertical
    lacking = -size[1 if vertical else 0] % m
    around = (lacking // 2, lacking - lacking // 2)
    pads = (*around, 0, 0) if vertical else (0, 0, *around)
    q, k, v = (F.pad(as_map(x, size), pads) for x in (q, k, v))
    whole = (q.shape[2], q.shape[3])
    stripes = [(j if vertical else i) // m for i, j in places(whole)]
    same = torch.tensor([[a == b for b in stripes] for a in stripes])
    bias = torch.zeros(same.shape, dtype=q.dtype).masked_fill(~same, -torch.inf)
    flat = [x.flatten(2).transpose(1, 2) for x in (q, k, v)]
    out = as_map(attend(*flat, branch.num_heads, bias.expand(branch.num_heads, -1, -1)), whole)
    stripe = torch.tensor(stripes).unflatten(0, whole)
    beside = F.pad(stripe, (1, 1, 1, 1), value=-1)
    padded, weight = F.pad(v, (1, 1, 1, 1)), branch.get_v.weight
    out = out + branch.get_v.bias[:, None, None]
    for i, j in product(range(3), range(3)):
        rows, columns = slice(i, i + whole[0]), slice(j, j + whole[1])
        inside = beside[rows, columns] == stripe
        out = out + weight[:, 0, i, j][:, None, None] * padded[:, :, rows, columns] * inside
    top, left = pads[2], pads[0]
    return out[:, :, top : top + size[0], left : left + size[1]].flatten(2).transpose(1, 2)


def stripes(mixer: Any, q: Tensor, k: Tensor, v: Tensor, size: Pair) -> Tensor:
    halves = zip(mixer.attns, *(x.chunk(2, -1) for x in (q, k, v)), strict=True)
    return torch.cat([one_stripe(branch, *half, size) for branch, *half in halves], -1)


def class_token(attn: Any, q: Tensor, k: Tensor, v: Tensor, size: Pair) -> Tensor:
    """Agent attention of a class token and the tokens behind it."""
    p, shape, heads = attn.base_grid, attn.agent_shape, attn.num_heads
    b1, b2 = biases(attn, size)
    of_key, of_query = (
        interpolate(t.reshape(heads, 1, p, p), shape).reshape(heads, -1)
        for t in (attn.ac_bias[0], attn.ca_bias[0])
    )
    b1, b2 = torch.cat([of_key[..., None], b1], 2), torch.cat([of_query[:, None], b2], 1)
    agents = average(as_map(q[:, 1:], size), shape)
    out = attend(q, agents, attend(agents, k, v, heads, b1), heads, b2)
    detail = depthwise(as_map(v[:, 1:], size), attn.dwc.weight, attn.dwc.bias)
    return out + F.pad(detail.flatten(2).transpose(1, 2), (0, 0, 1, 0))


DEFINITIONS: dict[str, Callable[..., Tensor]] = {
    "aft_full": aft_full,
    "aft_local": aft_local,
    "aft_conv": aft_conv,
    "aft_simple": aft_simple,
    "norm": norm,
    "diag": diag,
    "focused": focused,
    "stripes": stripes,
}
