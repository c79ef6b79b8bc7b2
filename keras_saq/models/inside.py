"""What becomes of the layers inside of a composite, from a plan.

And which of them makes the tensor that another one reads: the composite
remembers it, since nothing is traced again when it is loaded from a file.
"""

from keras_saq.layers import roles
from keras_saq.layers.hidden import Hidden
from keras_saq.layers.hidden import places


class Inside:
    """The table of a composite, or of a model with a class of its own.

    Args:
        plan: a `Plan`.
        root: the composite.

    Attributes:
        hidden: dict from place to `Hidden`.
        outputs: place of the layer that makes each output, or `None`.
    """

    def __init__(self, plan, root):
        self._plan = plan
        self._places = {
            id(layer): place for place, layer in places(root).items()
        }
        self._openings = [o for o in plan.graph.openings if o.composite is root]
        self.hidden = {
            place: Hidden(plan.config_of(layer), self._source_of(layer))
            for place, layer in places(root).items()
            if plan.config_of(layer) is not None
        }
        self.outputs = []
        if len(self._openings) == 1:
            self.outputs = [
                self._behind(value) for value in self._openings[0].outputs
            ]

    def _source_of(self, layer):
        sites = self._plan.graph.sites_of(layer)
        if not sites or not sites[0].inputs:
            return None
        found = {self._behind(site.inputs[0]) for site in sites}
        return found.pop() if len(found) == 1 else None

    def _behind(self, value):
        """Place of the nearest quantizing or weighted layer, or `None`.

        The same walk as `keras_saq.layers.links.find_source`, on values.
        """
        while True:
            if len(self._openings) == 1 and value in self._openings[0].inputs:
                index = self._openings[0].inputs.index(value)
                return f"input:{index}"
            site = value.producer
            if site is None:
                return None
            config = self._plan.config_of(site.operation)
            if config is not None and (config.outputs or config.weights):
                return self._places.get(id(site.operation))
            if not roles.keeps_grid(site.operation):
                return None
            value = site.inputs[0]
