# The short door to the recipe named below; its command, cost and expected score are there.
_base_ = "./agent_pvt/fpn_agent-pvt-t_8xb2-40k_ade20k-512x512.py"
