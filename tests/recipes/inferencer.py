"""Predict one image with mmdet's or mmseg's own Inferencer: PACKAGE CONFIG CHECKPOINT IMAGE OUT."""

import sys
from typing import Any


def main(package: str, config: str, checkpoint: str, image: str, out: str) -> None:
    options: dict[str, Any] = {}
    if package == "mmdet":
        from mmdet.apis import DetInferencer as Inferencer

        options["no_save_pred"] = False
    else:
        from mmseg.apis import MMSegInferencer as Inferencer
    Inferencer(config, checkpoint, device="cpu")(image, out_dir=out, **options)


if __name__ == "__main__":
    main(*sys.argv[1:])
