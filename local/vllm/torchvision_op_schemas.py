"""Lets a CUDA build of torchvision be imported beside a CPU build of torch.

PyPI's torchvision for Linux is a CUDA build. Its compiled operators never load beside CPU torch,
and its Python code then fails when it registers fake kernels for operators without a schema
(`operator torchvision::nms does not exist`), which stops vLLM. Declaring the two schemas first is
enough: no image path of vLLM calls the operators themselves.

A .pth file imports this module at every interpreter start, including in vLLM's child processes. So
it only registers an import hook, and imports nothing that Python has not already imported; torch
is imported when torchvision is. A torchvision built for the CPU ("+cpu") has its own schemas and is
left alone.
"""

import sys

SCHEMAS = {
    "torchvision::nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "torchvision::qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


class _BeforeTorchvision:
    def find_spec(self, name, path=None, target=None):
        if name != "torchvision":
            return None
        sys.meta_path.remove(self)
        import importlib.metadata  # 40 ms, too long for every start of Python

        if not importlib.metadata.version("torchvision").endswith("+cpu"):
            import torch

            for operator, schema in SCHEMAS.items():
                torch.library.define(operator, schema)
        return None  # the ordinary finders import torchvision itself


sys.meta_path.insert(0, _BeforeTorchvision())
