"""What a choice of bits costs."""

from keras_saq.search.cost import LayerCost
from keras_saq.search.cost import layer_costs

__all__ = ["LayerCost", "layer_costs"]
