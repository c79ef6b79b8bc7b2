"""What a quantized composite layer remembers of the layers inside of it."""

import keras

from keras_saq.layers.hidden import freeze
from keras_saq.layers.hidden import places


class Composite:
    """Mixin of every look-alike; of use in those that consist of layers.

    The table from places to quantizers is applied once the layers inside are
    built, which is after `build` for some composites and in their first call
    for others.
    """

    @property
    def quantized_parts(self):
        """Dict from place to `Hidden`; `None` unless this is a composite."""
        return self.__dict__.get("_hidden")

    def _attach_hidden(self, hidden, output_places, frozen=()):
        self.__dict__["_hidden"] = hidden
        self.__dict__["_frozen_places"] = tuple(frozen)
        self.__dict__["_output_places"] = list(output_places)
        self.__dict__["_is_pending"] = True
        self.__dict__["_input_sources"] = []
        # What is already there and built. The rest when it is.
        self._apply_hidden()

    def _apply_hidden(self):
        """Quantizes the layers inside, once each of them is built."""
        found = places(self)
        layers = {place: found.get(place) for place in self._hidden}
        if not all(layer and layer.built for layer in layers.values()):
            return
        for place, entry in self._hidden.items():
            if not isinstance(layers[place], Composite):
                if layers[place].path is None:
                    # Layers without weights are built without a name scope.
                    layers[place]._path = self._path_to(place, found)
                self._quantize_part(layers[place], entry.config)
        for place, entry in self._hidden.items():
            layers[place]._set_source(self._find(entry.source, found))
        for place in self._frozen_places:
            if place in found:
                freeze(found[place])
        self.__dict__["_is_pending"] = False
        # PyTorch keeps a list of a module's parameters, to clear gradients.
        self._post_build()

    def _path_to(self, place, found):
        steps = place.split("/")
        outer = ["/".join(steps[: i + 1]) for i in range(len(steps))]
        names = [self.path or self.name, *(found[p].name for p in outer)]
        return "/".join(names)

    def _find(self, source, found):
        if source is not None and source.startswith("input:"):
            index = int(source.removeprefix("input:"))
            return (
                self._input_sources[index]
                if index < len(self._input_sources)
                else None
            )
        return found.get(source)

    def output_source(self, index):
        """The layer inside that makes the `index`-th output, or `None`."""
        if self.quantized_parts is None or index >= len(self._output_places):
            return None
        return places(self).get(self._output_places[index])

    def _parts_config(self):
        """The table, for `get_config`; empty for other layers."""
        if self.quantized_parts is None:
            return {}
        parts = self.quantized_parts.items()
        return {
            "hidden": {place: entry.get_config() for place, entry in parts},
            "outputs": list(self._output_places),
            "trainable": self.trainable,
            "frozen": [
                place
                for place, part in places(self).items()
                if not part.trainable
            ],
        }

    def build_from_config(self, config):
        is_default = getattr(self.build, "_is_default", False)
        if self.quantized_parts is not None and is_default:
            if not isinstance(self, keras.Model):
                return  # it is built where it is called
        super().build_from_config(config)
        if self.quantized_parts is not None and self._is_pending:
            self._apply_hidden()
