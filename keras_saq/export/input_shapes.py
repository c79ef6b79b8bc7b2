"""Sizes of a model's inputs that are open in the model and fixed in a file."""

from keras import tree

from keras_saq.models.wrapper import inner_model


def input_shapes_of(model, input_shape):
    """What a user gave as `input_shape`, as a list of shapes.

    Args:
        model: a quantized model.
        input_shape: `None`, a shape without the batch axis, a list of shapes,
            or a dict of them by the names of the inputs.

    Returns:
        List of tuples in the order of the model's inputs, or `None`.

    Raises:
        ValueError: if it is something else.
    """
    if input_shape is None:
        return None
    if isinstance(input_shape, dict):
        structure = inner_model(model).input
        if not isinstance(structure, dict) or set(structure) != set(
            input_shape
        ):
            raise ValueError(
                "`input_shape` must have a shape for each input of the model. "
                f"Expected: {structure}. Received: {input_shape}"
            )
        return [tuple(input_shape[name]) for name in sorted(input_shape)]
    if all(isinstance(n, int) for n in input_shape):
        return [tuple(input_shape)]
    return [tuple(shape) for shape in input_shape]


def open_inputs(model):
    """Whether some size of the model's inputs, but for the batch, is open."""
    inputs = getattr(inner_model(model), "inputs", None) or ()
    return any(None in t.shape[1:] for t in tree.flatten(inputs))


def shapes_in_file(inputs):
    """The sizes with which a file was written, from its `GraphTensor`s.

    Returns:
        List of tuples; `None` if some of them are open.
    """
    shapes = [tuple(t.shape[1:]) for t in inputs]
    return None if any(n < 0 for shape in shapes for n in shape) else shapes
