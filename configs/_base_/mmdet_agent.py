# What every detection config of this toolkit shares.
custom_imports = dict(imports=['mmdet_agent'], allow_failed_imports=False)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3))
