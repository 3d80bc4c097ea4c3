"""The ONNX graphs of every model whose version of the table is kept, by the model's name: what queries run instead of torch.

data/export holds the graphs of one model, the latest. Both stages that can come last keep them here, the export and the publish, so that
an earlier version is asked by its own graphs, too. A folder is of its model alone for ever: no reader can get another one's graphs.
"""

from __future__ import annotations

import shutil

from assets import artifacts

GRAPHS = artifacts.LANCEDB / "graphs"


def keep_graphs() -> None:
    """Keep what data/export holds, if anything; by hard links, which need no space. Pruning is the publish's."""
    try:
        card = artifacts.read_json(artifacts.EXPORT / artifacts.EXPORT_CARD)
        folder = GRAPHS / artifacts.model_name(card["recipe"], card["model_sha256"])
        if (folder / artifacts.EXPORT_CARD).is_file() and artifacts.read_json(folder / artifacts.EXPORT_CARD) == card:
            return
        with artifacts.replacing(folder) as temporary:
            artifacts.linked_copy(artifacts.EXPORT, temporary)
            if artifacts.read_json(artifacts.EXPORT / artifacts.EXPORT_CARD) != card:
                raise FileNotFoundError("it is being replaced")
            for name in artifacts.EXPORTED_FOR_OTHERS:
                shutil.rmtree(temporary / name, ignore_errors=True)
    except (FileNotFoundError, NotADirectoryError):  # none was made, or it is being made anew: then whoever makes it keeps it
        return
