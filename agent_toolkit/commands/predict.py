"""Predict on images, folders, patterns and videos: pictures, and results as files.

    python tools/predict.py CONFIG work_dirs/NAME/epoch_12.pth photos/ clip.mp4 --out predictions
    python tools/predict.py CONFIG CHECKPOINT "photos/**/*.jpg" --score-thr 0.05 --no-draw
    python tools/predict.py CONFIG CHECKPOINT aerial.tif --tile 1024 --overlap 128
    python tools/predict.py CONFIG CHECKPOINT aerial.tif --max-memory 8GB

A detector writes COCO results (predictions.json, for the images of images.json), a segmentor a
label map an image (labels/*.png, numbered as images.json says); both write pictures (drawn/). A
folder stands for the images and videos right in it. Images are prepared as in testing, each alone:
results do not depend on what else is predicted.

Large images: with --tile a sliding window predicts them in overlapping tiles, each treated as an
image of that size, so memory follows the tile. Take tiles of about the size of the training images,
and an overlap larger than the objects: one that a tile cuts off then comes from the tile that holds
it whole. With --max-memory 8GB an image goes through the model as a whole if that takes no more
memory of the process (on a GPU: of the GPU), and in tiles as large as fit if not; none is made
smaller, whatever size the config resizes images to. A line says which.
"""

from mmengine_agent.predict.memory import read_size
from mmengine_agent.predict.run import predict
from mmengine_agent.run.setup import add_config_flags, make_parser


def main() -> None:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("config", help="config file, best the one training wrote to its work dir")
    add("checkpoint", help="checkpoint file")
    add("inputs", nargs="+", metavar="INPUT", help="image, video, folder, pattern")
    add("--out", default="predictions", metavar="DIR", help="default: %(default)s")
    add("--device", default="auto", help="cpu, cuda, cuda:1; default: a GPU if any")
    add("--batch-size", type=int, default=1, metavar="N", help="images or tiles")
    add("--score-thr", type=float, default=0.3, metavar="S", help="least score of objects; 0.3")
    names = "class names, or a text file with a name a line"
    add("--classes", nargs="+", metavar="NAME", help=names)
    add("--tile", type=int, metavar="SIZE", help="cut images into tiles (sliding window); pixels")
    memory = "whole images if they fit into so much, such as 8GB, in tiles if not"
    add("--max-memory", type=read_size, metavar="SIZE", help=memory)
    overlap = "of neighbouring tiles, pixels; default: 1/8 of one"
    add("--overlap", type=int, metavar="N", help=overlap)
    add("--no-draw", action="store_true", help="no pictures")
    add("--no-results", action="store_true", help="no predictions.json, no labels")
    add_config_flags(parser)
    predict(parser.parse_args())
