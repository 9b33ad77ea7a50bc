# Not decayed in FLatten-Swin and FLatten-CSwin: what they have in the place of Agent-Swin's tables,
# and what else Agent-Swin's recipes except.
flatten_no_decay = {
    name: dict(decay_mult=0.0)
    for name in ("relative_position_bias_table", "norm", "positional_encoding", ".scale")
}
