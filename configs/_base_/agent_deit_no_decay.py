# Not decayed: what mmseg's recipe for DeiT excepts, and tables, as in Agent-Swin's recipes.
deit_no_decay = {
    name: dict(decay_mult=0.0)
    for name in (
        "pos_embed",
        "cls_token",
        "norm",
        "an_bias",
        "na_bias",
        "ah_bias",
        "aw_bias",
        "ha_bias",
        "wa_bias",
        "ac_bias",
        "ca_bias",
    )
}
