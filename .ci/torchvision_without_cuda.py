"""Let `import torchvision` succeed beside a CPU build of torch.

The registry's Linux wheels of torchvision are built against CUDA torch. Beside a CPU torch their C++ operators do not load, and the
import stops at describing two of them ("operator torchvision::nms does not exist"). onespace, open_clip and timm use the image
transforms only, so this declares those two just before torchvision is imported. `make` puts it into the virtual environment;
with a CUDA torch it does nothing.
"""

import importlib.abc
import sys


class _DeclareOperators(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            import torch

            if torch.version.cuda is None:
                # the library object must outlive this call, or the declaration is withdrawn
                self.library = torch.library.Library("torchvision", "FRAGMENT")
                for operator in ("nms", "qnms"):
                    self.library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
                torch.torchvision_operator_declarations = self.library
        return None


sys.meta_path.insert(0, _DeclareOperators())
