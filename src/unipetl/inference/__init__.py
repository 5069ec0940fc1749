"""Finds the places of a model that no table describes, by watching it compute once."""

from unipetl.inference.infer import Inferred, base_path, infer
from unipetl.inference.twin import infer_from_shapes

__all__ = ["Inferred", "base_path", "infer", "infer_from_shapes"]
