"""python -m assets.commands.sizing PICTURES [KILOBYTES]: what so many pictures need with ViT-L-14-336.

Bytes, hours of cores and GPUs, memory. data/SIZING.md explains each line and says what was measured.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from assets.profiles.__main__ import ASSUMED_FLOPS

TRAINED_SHARE = 0.5  # of the pictures, where classes and families are split as in params.yaml and some have no label
DIMENSION = 768  # of a vector of ViT-L-14-336
FORWARD_FLOPS = 382e9  # of a picture at 336 px, as `make check-profiles` counts them
TRAINING_FORWARDS = 4  # forward, backward of twice that, and forward again where activations are computed anew
INSPECTION_SECONDS = 0.02  # of one core: read, decode, hash and fingerprint one photograph
ROW_BYTES = 1_000  # of the words of a row, its indexes included


@dataclass(frozen=True)
class Need:
    stored_bytes: float  # source table, curated table, published table
    core_hours: float  # of curation
    embedding_gpu_hours: float  # of one pass over all pictures
    training_gpu_hours: float  # of one image tower
    vector_bytes: float  # that publishing holds in memory


def need(pictures: int, picture_bytes: float, epochs: int) -> Need:
    """Of a library with `pictures`, one image tower trained for `epochs`."""
    embedded = pictures * FORWARD_FLOPS / ASSUMED_FLOPS / 3600
    return Need(
        stored_bytes=pictures * (3 * picture_bytes + DIMENSION * 4 + ROW_BYTES),
        core_hours=pictures * INSPECTION_SECONDS / 3600,
        embedding_gpu_hours=embedded,
        training_gpu_hours=TRAINED_SHARE * epochs * TRAINING_FORWARDS * embedded,
        vector_bytes=pictures * DIMENSION * 4,
    )


def main(arguments: list[str]) -> int:
    if not 1 <= len(arguments) <= 2 or not all(each.isdecimal() for each in arguments):
        print(__doc__, file=sys.stderr)
        return 2
    pictures, kilobytes = int(arguments[0]), int(arguments[1]) if len(arguments) == 2 else 100
    found = need(pictures, 1000 * kilobytes, epochs=3)
    print(f"{pictures:,} pictures of {kilobytes} kB")
    print(f"stored               {found.stored_bytes / 1e12:,.1f} TB")
    print(f"curation             {found.core_hours:,.0f} core-hours")
    print(f"one embedding pass   {found.embedding_gpu_hours:,.0f} GPU-hours")
    print(f"one image tower      {found.training_gpu_hours:,.0f} GPU-hours")
    print(f"memory for vectors   {found.vector_bytes / 1e9:,.0f} GB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
