"""What a choice of bits costs, and the search for the best one."""

from keras_saq.search.budget import Budget
from keras_saq.search.candidates import Candidates
from keras_saq.search.cost import LayerCost
from keras_saq.search.cost import layer_costs
from keras_saq.search.latency import LatencyTable
from keras_saq.search.latency import measure_latency
from keras_saq.search.result import FrontPoint
from keras_saq.search.search import PolicySearch
from keras_saq.search.search import search_policy
from keras_saq.search.solver import InfeasibleBudget
from keras_saq.search.space import SearchSpace
from keras_saq.search.supernet import Supernet

__all__ = [
    "Budget",
    "Candidates",
    "FrontPoint",
    "InfeasibleBudget",
    "LatencyTable",
    "LayerCost",
    "PolicySearch",
    "SearchSpace",
    "Supernet",
    "layer_costs",
    "measure_latency",
    "search_policy",
]
