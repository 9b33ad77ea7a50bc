"""The two forms of linear attention, with their gradients by hand: see ``linear``."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from agent_attention.compute.focused import EPS as FOCUSED_EPS
from agent_attention.compute.guard import settings
from agent_attention.compute.linear import Features, add_product, split, write_product
from agent_attention.compute.rms import EPS as RMS_EPS

aten = torch.ops.aten
_LOG2_E = math.log2(math.e)


class NormForm:
    """φ is elu, with or without 1; what is read is divided by its root mean square.

    Args:
        plus_one: add 1, so that φ is positive.
    """

    def __init__(self, plus_one: bool) -> None:
        self.few = settings().norm
        self.plus_one = plus_one

    def features(self, x: Tensor, scale: Tensor | None) -> Features:
        """φ(x)."""
        if not self.plus_one:
            return Features(F.elu(x))
        # torch takes a third of the time of exp for exp2
        return Features((x * _LOG2_E).clamp_(max=0).exp2_().add_(x.clamp(min=0)))

    def features_backward(
        self,
        x: Tensor,
        made: Features,
        grad: Tensor,
        out: Tensor,
        scale: Tensor | None,
        of_scale: Tensor | None,
    ) -> None:
        """φ' is exp(x) below 0, and 1 above."""
        slope = made.w if self.plus_one else made.w.add_(1)
        torch.mul(grad, slope.clamp_(max=1), out=out)

    def read(self, made: Features, state: Tensor, out: Tensor) -> Tensor:
        """rms(φ S), and the norm of φ S."""
        write_product(out, made.w, state[..., :-1])
        length = _length(out)
        out.mul_(self._inverse(length, out))
        return length

    def read_backward(
        self, made: Features, state: Tensor, grad: Tensor, of_state: Tensor
    ) -> Tensor:
        """Of t / rms(t): the part of ``grad`` that does not lengthen t, divided by rms(t)."""
        phi, product = made.w, state[..., :-1]
        t = torch.empty_like(phi)
        write_product(t, phi, product)
        inverse = self._inverse(_length(t), t)
        along = torch.linalg.vecdot(t, grad).unsqueeze(-1)
        of_t = t.mul_(along * inverse.square() / -t.shape[1]).add_(grad).mul_(inverse)
        add_product(of_state[..., :-1], phi, of_t)
        of_phi = torch.empty_like(phi)
        write_product(of_phi, of_t, product.mT)
        return of_phi

    def _inverse(self, length: Tensor, t: Tensor) -> Tensor:
        """1 / √(mean t² + ε)."""
        return length.square().div_(t.shape[1]).add_(RMS_EPS).rsqrt_()


class FocusedForm:
    """φ focuses, see ``focused.focus``; what is read is divided by φ(q) Σ φ(k) / n + ε.

    With w = uᵖ, φ(x) is ‖u‖ w / ‖w‖.

    Args:
        power: p.
    """

    def __init__(self, power: int) -> None:
        self.few = settings().focused
        self.power = power

    def features(self, x: Tensor, scale: Tensor | None) -> Features:
        """w, ‖u‖ / ‖w‖, and (u, u^(p-1), ‖u‖, ‖w‖)."""
        assert scale is not None
        inverse = scale.reciprocal()
        u = torch.addcmul(FOCUSED_EPS * inverse, x.clamp(min=0), inverse)
        slope = u.square() if self.power == 3 else u.pow(self.power - 1)
        w = slope * u
        length, norm = _length(u), _length(w)
        return Features(w, length / norm, (u, slope, length, norm))

    def features_backward(
        self,
        x: Tensor,
        made: Features,
        grad: Tensor,
        out: Tensor,
        scale: Tensor | None,
        of_scale: Tensor | None,
    ) -> None:
        """Of u: p u^(p-1) (grad - w (w·grad) / ‖w‖²) + u (w·grad) / ‖u‖²."""
        assert scale is not None and of_scale is not None
        w, _, (u, slope, length, norm) = made
        along = torch.linalg.vecdot(w, grad).unsqueeze(-1)
        grad.addcmul_(w, along / norm.square(), value=-1)
        of_u = torch.mul(u, along / length.square(), out=out)
        of_u.addcmul_(slope, grad, value=self.power)
        of_scale.sub_(u.mul_(of_u).sum(0).div_(scale))
        aten.threshold_backward.grad_input(of_u.div_(scale), x, 0, grad_input=out)

    def read(self, made: Features, state: Tensor, out: Tensor) -> Tensor:
        """w S / (w z + ε ‖w‖ / ‖u‖), and the divisor."""
        assert made.factor is not None
        write_product(out, made.w, state[..., :-1])
        divisor = torch.addmm(FOCUSED_EPS / made.factor, made.w, _by_head(state))  # (T, h)
        split(out, len(state)).div_(divisor.t().unsqueeze(-1))
        return divisor

    def read_backward(
        self, made: Features, state: Tensor, grad: Tensor, of_state: Tensor
    ) -> Tensor:
        """Of out = t / s: that of t is grad / s, that of s -(grad·out) / s."""
        count = len(state)
        out = torch.empty_like(made.w)
        divisor = self.read(made, state, out)
        of_s = split(out.mul_(grad), count).sum(-1).t().div_(divisor).neg_()  # (T, h)
        of_t = out
        torch.div(split(grad, count), divisor.t().unsqueeze(-1), out=split(of_t, count))
        add_product(of_state[..., :-1], made.w, of_t)
        of_state[..., -1:].baddbmm_(split(made.w, count).mT, of_s.t().unsqueeze(-1))
        of_phi = of_s @ _by_head(state).t()
        split(of_phi, count).baddbmm_(split(of_t, count), state[..., :-1].mT)
        return of_phi


def _by_head(state: Tensor) -> Tensor:
    """The last column of the state as a matrix of blocks (C, h)."""
    return torch.diag_embed(state[..., -1].t()).transpose(0, 1).flatten(0, 1)


def _length(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True)
