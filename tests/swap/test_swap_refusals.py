"""What a swap refuses, what it leaves alone, and what it reports."""

from typing import Any

import pytest
import torch
from helpers import small_backbone
from mmdet.models.backbones import SwinTransformer
from swap_cases import prepare, state_of
from torch import Tensor, nn
from torch.nn import functional as F

from agent_attention import AgentPVT
from agent_attention.swap import FAMILIES, Agent, Nystrom, PooledKeys, swap_attention
from agent_attention.swap.fused import TimmAttention
from agent_attention.swap.multihead import TorchAttention

IMAGE = torch.ones(1, 3, 64, 96)


@pytest.fixture
def pvt() -> AgentPVT:
    """Two stages with reduced keys, one with softmax and one with agents: blocks 0, 1 2, 3, 4."""
    return small_backbone("pvt", mixers=("reduced", "reduced", "softmax", "agent")).eval()


def refused(match: str) -> Any:
    return pytest.raises(ValueError, match=match)


def test_before_the_swap(pvt: AgentPVT) -> None:
    before = state_of(pvt)
    with refused(r"evaluation mode: call model.eval\(\)"):
        swap_attention(pvt.train(), Agent())
    pvt.eval()
    with refused("block4.0.attn, which cannot be swapped: it is no softmax attention"):
        swap_attention(pvt, Agent(), where=lambda name, module: name == "block4.0.attn")
    with refused(r"where has \[5\], but there are attentions 0 to 4"):
        swap_attention(pvt, Agent(), where={0, 5})
    with refused("where is a function of name and module, or numbers; got 3"):
        swap_attention(pvt, Agent(), where=3)  # type: ignore[arg-type]
    with refused("where asks for no attention"):
        swap_attention(pvt, Agent(), where=[])
    with refused("steps= is for diffusion models"):
        swap_attention(pvt, Agent(), steps=20)
    with refused("there is no form"):
        swap_attention(pvt, None)
    assert state_of(pvt) == before


def test_unknown_attention_is_told_what_is_known() -> None:
    class MyAttention(nn.Linear):
        pass

    with refused(f"MyAttention net.0: .*no known family.*Known are .*{', '.join(FAMILIES)}"):
        swap_attention(nn.ModuleDict({"net": nn.Sequential(MyAttention(2, 2))}).eval(), Agent())
    with refused("there is none"):
        swap_attention(nn.Linear(2, 2).eval(), Agent())
    swin = SwinTransformer(embed_dims=8, depths=(1, 1), num_heads=(1, 1), out_indices=(0, 1))
    with refused("WindowMSA .*relative position bias"):
        swap_attention(prepare(swin), Agent())
    with refused("its map is not known, pass size="):
        swap_attention(nn.MultiheadAttention(4, 2).eval(), Agent())
    with refused("size='conv' is the name of no module"):
        swap_attention(nn.MultiheadAttention(4, 2).eval(), Agent(), size="conv")


def test_a_second_swap(pvt: AgentPVT) -> None:
    with swap_attention(pvt, Agent()), refused(r"swapped already: call remove\(\)"):
        swap_attention(pvt, PooledKeys())
    with swap_attention(pvt.block1, Agent()), refused("swapped already"):
        swap_attention(pvt, Agent())
    swap_attention(pvt, Agent()).remove()


def test_exceptions_leave_the_model_as_it_was(pvt: AgentPVT) -> None:
    before, wanted = state_of(pvt), pvt(IMAGE)

    def fails(*args: Any) -> Tensor:
        raise RuntimeError("a form of somebody's")

    with pytest.raises(RuntimeError, match="somebody"), swap_attention(pvt, fails, min_tokens=0):
        pvt(IMAGE)
    with swap_attention(pvt, Agent()), refused("block1.0.attn .*for evaluation mode alone"):
        pvt.train()(IMAGE)
    pvt.eval()
    assert state_of(pvt) == before
    for found, each in zip(pvt(IMAGE), wanted, strict=True):
        assert torch.equal(found, each)


def test_the_report_says_what_was_used_and_why_not(pvt: AgentPVT) -> None:
    with swap_attention(pvt, PooledKeys((2, 2)), where={0, 1, 3, 2}, min_tokens=25) as swap:
        assert [row.why for row in swap.report][:1] == ["not called yet"]
        pvt(IMAGE)
        first, *_, softmax, agents = swap.report
        assert first[:6] == ("block1.0.attn", 384, 6, (16, 24), (2, 2), True)
        assert softmax.why == "24 tokens are fewer than min_tokens=25"
        assert agents.why == "it is no softmax attention of all tokens"
        assert "block1.0.attn  384      6     16x24  2x2   used" in str(swap)
    with swap_attention(pvt, Agent((2, 3)), where=[0, 3], min_tokens=0) as swap:
        wanted = pvt(IMAGE)
        whys = [row.why for row in swap.report]
        assert whys[0] == "6 landmarks for 384 queries and 6 keys do not pay"
        assert whys[1] == "not asked for" and whys[3] == "used"
    softmax_alone = pvt(IMAGE)
    assert torch.equal(wanted[0], softmax_alone[0])  # bit for bit where it does not pay
    assert not torch.equal(wanted[2], softmax_alone[2])


def test_calls_that_no_form_can_keep() -> None:
    attn = prepare(nn.MultiheadAttention(8, 2, batch_first=True), torch.float32)
    x, mask = torch.randn(2, 24, 8), torch.zeros(24, 24, dtype=torch.bool)
    with swap_attention(attn, Agent((2, 2)), min_tokens=0, size=(4, 6)):
        assert attn(x, x, x)[1] is None  # there are no weights of all tokens
        with refused(r"the model \(MultiheadAttention\): it is called with a mask"):
            attn(x, x, x, attn_mask=mask)
        with refused("with a mask"):
            attn(x, x, x, key_padding_mask=mask[:2])
        with refused("cross-attention"):
            attn(x, x[:, :12], x[:, :12])
        with refused("23 tokens, which are no map of 4x6"):
            attn(*(3 * [x[:, :23]]))
    with refused("learned or zero keys"):
        swap_attention(nn.MultiheadAttention(8, 2, add_zero_attn=True).eval(), Agent(), size=(4, 6))


def timm_like() -> nn.Module:
    """A stand-in that is timm's by name: only what the adapter looks at."""

    class PatchEmbed(nn.Conv2d):
        def dynamic_feat_size(self, size: tuple[int, int]) -> list[int]:
            return [size[0] // 16, size[1] // 16]

    class Attention(nn.Module):
        __module__ = "timm.layers.attention"

        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.fused_attn, self.options = nn.Linear(8, 24), False, {}

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.qkv(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
            if not self.fused_attn:
                return ((q @ k.mT / 2).softmax(-1) @ v).transpose(1, 2).flatten(2)
            return (
                F.scaled_dot_product_attention(q, k, v, **self.options).transpose(1, 2).flatten(2)
            )

    class Named(Attention):  # a subclass without a forward is of the same family
        pass

    class ViT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch_embed, self.attn = PatchEmbed(3, 8, 16, 16), Named()

        def forward(self, x: Tensor) -> Tensor:
            return self.attn(self.patch_embed(x).flatten(2).mT)

    return prepare(ViT(), torch.float32)


def test_families_are_found_by_name_and_made_to_use_the_fused_call() -> None:
    model = timm_like()
    wanted = model(IMAGE)
    with swap_attention(model, Nystrom((4, 6)), min_tokens=0, force=True) as swap:
        torch.testing.assert_close(model(IMAGE), wanted)
        assert isinstance(swap._adapters[0], TimmAttention) and not model.attn.fused_attn
        model.attn.options = {"is_causal": True}
        with refused("called with a mask or a bias"):
            model(IMAGE)
        model.attn.options = {"scale": 3.0}
        with refused("another scale"):
            model(IMAGE)
        assert not model.attn.fused_attn  # also after an exception


def test_a_family_of_ones_own_is_a_class_and_an_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    class OwnAttention(nn.MultiheadAttention):
        def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:  # type: ignore[override]
            return super().forward(x, x, x)[0]

    class OwnAdapter(TorchAttention):
        knows_size = True

        @classmethod
        def refusal(cls, *args: Any) -> str | None:
            return None

        def run(self, x: Tensor, size: tuple[int, int]) -> Tensor:  # type: ignore[override]
            self.map = size
            chosen = self.choose(x.shape[1], x.shape[1])
            assert chosen is not None
            out = self.compute(chosen, *self.project(x, x, x))
            return self.module.out_proj(out.transpose(1, 2).flatten(2))

    key = f"{__name__.partition('.')[0]}.OwnAttention"
    monkeypatch.setitem(FAMILIES, key, OwnAdapter)
    attn, x = prepare(OwnAttention(8, 2, batch_first=True), torch.float32), torch.randn(2, 24, 8)
    wanted = attn(x, (4, 6))
    with swap_attention(attn, PooledKeys((4, 6)), min_tokens=0, force=True):
        torch.testing.assert_close(attn(x, (4, 6)), wanted)
