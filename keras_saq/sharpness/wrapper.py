"""What a model around a model hands through to the one inside."""


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
