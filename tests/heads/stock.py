"""The stock configs whose heads are tried with our backbones: what ``run.py`` runs, as data."""

from typing import NamedTuple


class Stock(NamedTuple):
    """A config of mmdet's or mmseg's, as the tools take it."""

    head: str
    config: str
    refused: str = ""  # a part of the sentence with which it is refused

    @property
    def name(self) -> str:
        return self.config.rpartition("/")[2].removesuffix(".py")


def _det(head: str, config: str, refused: str = "") -> Stock:
    return Stock(head, f"mmdet::{config}.py", refused)


def _seg(head: str, config: str, refused: str = "") -> Stock:
    return Stock(head, f"mmseg::{config}_ade20k-512x512.py", refused)


BACKBONES = ("agent_pvt_t", "agent_swin_t")
STOCK = (
    _det("Faster R-CNN", "faster_rcnn/faster-rcnn_r50_fpn_1x_coco"),
    _det("Faster R-CNN, no neck", "faster_rcnn/faster-rcnn_r50-caffe-dc5_1x_coco"),
    _det("Faster R-CNN, C4", "faster_rcnn/faster-rcnn_r50-caffe-c4_ms-1x_coco", "shared_head"),
    _det("Mask R-CNN", "mask_rcnn/mask-rcnn_r50_fpn_1x_coco"),
    _det("Mask R-CNN, deformable", "dcn/mask-rcnn_r50-dconv-c3-c5_fpn_1x_coco"),
    _det("Cascade Mask R-CNN", "cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco"),
    _det("HTC", "htc/htc_r50_fpn_1x_coco"),
    _det("PointRend", "point_rend/point-rend_r50-caffe_fpn_ms-1x_coco"),
    _det("Sparse R-CNN", "sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco"),
    _det("QueryInst", "queryinst/queryinst_r50_fpn_1x_coco"),
    _det("RetinaNet", "retinanet/retinanet_r50_fpn_1x_coco"),
    _det("FCOS", "fcos/fcos_r50-caffe_fpn_gn-head_1x_coco"),
    _det("ATSS", "atss/atss_r50_fpn_1x_coco"),
    _det("GFL", "gfl/gfl_r50_fpn_1x_coco"),
    _det("TOOD", "tood/tood_r50_fpn_1x_coco"),
    _det("RTMDet", "rtmdet/rtmdet_tiny_8xb32-300e_coco"),
    _det("RTMDet-Ins", "rtmdet/rtmdet-ins_tiny_8xb32-300e_coco"),
    _det("YOLOX", "yolox/yolox_s_8xb8-300e_coco"),
    _det("YOLOv3", "yolo/yolov3_d53_8xb8-320-273e_coco"),
    _det("YOLOF", "yolof/yolof_r50-c5_8xb8-1x_coco"),
    _det("CenterNet", "centernet/centernet_r18_8xb16-crop512-140e_coco"),
    _det("CenterNet, update", "centernet/centernet-update_r50-caffe_fpn_ms-1x_coco"),
    _det("DETR", "detr/detr_r50_8xb2-150e_coco"),
    _det("Deformable DETR", "deformable_detr/deformable-detr_r50_16xb2-50e_coco"),
    _det("DAB-DETR", "dab_detr/dab-detr_r50_8xb2-50e_coco"),
    _det("DINO", "dino/dino-4scale_r50_8xb2-12e_coco"),
    _det("Mask2Former, instances", "mask2former/mask2former_r50_8xb2-lsj-50e_coco"),
    _det("Mask2Former, panoptic", "mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic"),
    _det("Mask2Former, of Swin", "mask2former/mask2former_swin-t-p4-w7-224_8xb2-lsj-50e_coco"),
    _det("MaskFormer, panoptic", "maskformer/maskformer_r50_ms-16xb1-75e_coco"),
    _det("Panoptic FPN", "panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco"),
    _det("SOLOv2", "solov2/solov2_r50_fpn_1x_coco"),
    _det("CondInst", "condinst/condinst_r50_fpn_ms-poly-90k_coco_instance"),
    _det(
        "CornerNet", "cornernet/cornernet_hourglass104_10xb5-crop511-210e-mstest_coco", "hourglass"
    ),
    _det("DetectoRS", "detectors/detectors_cascade-rcnn_r50_1x_coco", "DetectoRS"),
    _seg("Semantic FPN", "sem_fpn/fpn_r50_4xb4-160k"),
    _seg("UPerNet", "upernet/upernet_r50_4xb4-160k"),
    _seg("UPerNet, of Swin", "swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k"),
    _seg("FCN", "fcn/fcn_r50-d8_4xb4-160k"),
    _seg("PSPNet", "pspnet/pspnet_r50-d8_4xb4-160k"),
    _seg("DeepLabV3+", "deeplabv3plus/deeplabv3plus_r50-d8_4xb4-160k"),
    _seg("OCRNet", "ocrnet/ocrnet_hr18_4xb4-160k"),
    _seg("SegFormer", "segformer/segformer_mit-b0_8xb2-160k"),
    _seg("SegNeXt", "segnext/segnext_mscan-t_1xb16-adamw-160k"),
    _seg("K-Net on FCN", "knet/knet-s3_r50-d8_fcn_8xb2-adamw-80k"),
    _seg("K-Net on UPerNet", "knet/knet-s3_r50-d8_upernet_8xb2-adamw-80k"),
    _seg("Segmenter", "segmenter/segmenter_vit-t_mask_8xb1-160k"),
    _seg("MaskFormer", "maskformer/maskformer_r50-d32_8xb2-160k"),
    _seg("Mask2Former, semantic", "mask2former/mask2former_r50_8xb2-160k"),
    _seg("FastFCN", "fastfcn/fastfcn_r50-d32_jpu_psp_4xb4-160k"),
    _seg("SETR, naive", "setr/setr_vit-l_naive_8xb2-160k", "no pyramid from fine to coarse"),
    _seg("SETR, MLA", "setr/setr_vit-l_mla_8xb2-160k", "no pyramid from fine to coarse"),
    _seg("DPT", "dpt/dpt_vit-b16_8xb2-160k", "class token"),
)
