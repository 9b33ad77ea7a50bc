# The short door to the recipe named below; its command, cost and expected score are there.
_base_ = "./agent_pvt/mask-rcnn_agent-pvt-t_fpn_1x_coco.py"
