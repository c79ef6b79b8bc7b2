"""Models around a model: what they hand through, and what is inside."""


class Wrapper:
    """Mixin: `inputs`, `outputs`, layers and summary are those of `model`."""

    @property
    def inputs(self):
        """Symbolic inputs of the model inside."""
        return self.model.inputs

    @property
    def outputs(self):
        """Symbolic outputs of the model inside."""
        return self.model.outputs

    @property
    def output_names(self):
        """Names of the outputs of the model inside, which name its losses."""
        return self.model.output_names

    def get_layer(self, name=None, index=None):
        """A layer of the model inside."""
        return self.model.get_layer(name=name, index=index)

    def summary(self, *args, **kwargs):
        """Prints the summary of the model inside."""
        self.model.summary(*args, **kwargs)


def inner_model(model):
    """The quantized model inside a `SAQModel`, or the model itself.

    What tells them apart is the class: a user's model may well have an
    attribute `model`, which is a part of it.
    """
    return model.model if isinstance(model, Wrapper) else model
