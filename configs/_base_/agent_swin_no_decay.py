# Tables and norms of Agent-Swin are not decayed.
no_decay = dict(
    custom_keys={
        name: dict(decay_mult=0.0)
        for name in (
            "absolute_pos_embed",
            "relative_position_bias_table",
            "norm",
            "an_bias",
            "na_bias",
            "ah_bias",
            "aw_bias",
            "ha_bias",
            "wa_bias",
        )
    }
)
