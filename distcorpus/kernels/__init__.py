"""What a worker computes, and the registry of it (imports algorithms).

A new kernel is one file: a class as `base.Kernel` describes it, with `register` before it.
"""

from __future__ import annotations

from distcorpus.kernels.base import BlockResults, Kernel, Key, Packed, Result, as_dict
from distcorpus.kernels.checking import check_result
from distcorpus.kernels.estep import EStep, EStepParams
from distcorpus.kernels.inference import Inference, InferenceParams
from distcorpus.kernels.job import run
from distcorpus.kernels.measuring import ChunkBound, NormParams, SquaredNorm
from distcorpus.kernels.product import Product, ProductParams
from distcorpus.kernels.projection import DocumentProjection, ProjectionParams
from distcorpus.kernels.registry import KERNELS, kernel_named, load_own, register

__all__ = [
    "KERNELS",
    "BlockResults",
    "ChunkBound",
    "DocumentProjection",
    "EStep",
    "EStepParams",
    "Inference",
    "InferenceParams",
    "Kernel",
    "Key",
    "NormParams",
    "Packed",
    "Product",
    "ProductParams",
    "ProjectionParams",
    "Result",
    "SquaredNorm",
    "as_dict",
    "check_result",
    "kernel_named",
    "load_own",
    "register",
    "run",
]
