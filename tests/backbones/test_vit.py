"""Agent-ViT: its class token, its norm, and its blocks in the place of stages."""

import pytest
import torch
from helpers import blocks_of, mixers_of, seeded_input, small_backbone

from agent_attention import AgentViT
from agent_attention.mixers import MIXERS
from agent_attention.mixers.class_token import ClassTokenAgentAttention
from agent_attention.mixers.softmax import SoftmaxAttention

OTHERS = [name for name in MIXERS if name not in ("agent", "softmax")]
close = torch.testing.assert_close


def test_there_is_a_class_token_where_all_mixers_take_one() -> None:
    for mixers, has in [("agent", True), ("1 agent, 3 softmax", True), ("1 norm, 3 agent", False)]:
        model = small_backbone("vit", mixers=mixers)
        assert model.has_class_token == has == ("cls_token" in model.state_dict())
        assert model.pos_embed.shape[1] == 14 * 14 + has
    assert not any(small_backbone("vit", mixers=name).has_class_token for name in OTHERS)


def test_a_class_token_may_be_left_out() -> None:
    model = small_backbone("vit", class_token=False).eval()
    assert "cls_token" not in model.state_dict()
    with torch.no_grad():
        assert all(out.shape == (1, 8, 5, 7) for out in model(seeded_input(1, 70, 99)))


@pytest.mark.parametrize("name", OTHERS)
def test_a_class_token_is_refused_for_mixers_without_a_place_for_it(name: str) -> None:
    with pytest.raises(ValueError, match=r"class_token=True takes the mixers \['agent', 'softmax"):
        small_backbone("vit", mixers=name, class_token=True)


@torch.no_grad()
def test_the_class_token_changes_the_maps_behind_the_first_block() -> None:
    model, image = small_backbone("vit").eval(), seeded_input(1, 64, 80)
    before = model(image)
    model.cls_token.add_(3)
    assert not any(map(torch.equal, model(image), before))


@torch.no_grad()
def test_the_final_norm_is_of_the_last_map_alone() -> None:
    plain, normed = small_backbone("vit").eval(), small_backbone("vit", final_norm=True).eval()
    image = seeded_input(2, 64, 80)
    *before, last = plain(image)
    *same, found = normed(image)
    close(same, before, rtol=0, atol=0)
    wanted = normed.norm(last.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    close(found, wanted, rtol=1e-5, atol=1e-5)


def test_the_base_model_has_four_blocks_of_agents() -> None:
    with torch.device("meta"):
        model = AgentViT("base")
    kinds = [type(mixer) for block in blocks_of(model) for mixer in mixers_of(block)]
    assert kinds == [ClassTokenAgentAttention] * 4 + [SoftmaxAttention] * 8
