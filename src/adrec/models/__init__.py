"""Models: the base class, the registry, ADRec and its baselines."""

from adrec.models.base import Model
from adrec.models.network import NetworkModel
from adrec.models.registry import find_model, model_names, register
from adrec.nn.scores import Scores, Table

__all__ = ["Model", "NetworkModel", "Scores", "Table", "find_model", "model_names", "register"]
