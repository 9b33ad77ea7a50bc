# What every detection config of this toolkit shares.
_base_ = "mmdet::_base_/default_runtime.py"

custom_imports = dict(imports=["mmdet_agent"], allow_failed_imports=False)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3))
