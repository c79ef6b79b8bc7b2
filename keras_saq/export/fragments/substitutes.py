"""Functions of Keras's TensorFlow backend that LiteRT computes otherwise."""

import contextlib
import importlib

# The smallest normal float32.
_SMALLEST = 2.0**-126
_BACKEND = "keras.src.backend.tensorflow"


def _rsqrt(_, x):
    """Huge at zero: XNNPACK's own result there is no number.

    As 1 / sqrt(x) the converter would make the same RSQRT of it.
    """
    import tensorflow as tf

    x = tf.convert_to_tensor(x)
    return tf.math.rsqrt(tf.maximum(x, tf.cast(_SMALLEST, x.dtype)))


def _resize(resize, images, size, method="bilinear", **kwargs):
    """As two products of matrices, where LiteRT has no operator.

    Each output is a weighted sum of a column, then of a row, with weights that
    depend on the sizes alone.
    """
    import tensorflow as tf

    height, width = images.shape[-3:-1]
    has_kernel = method in ("bilinear", "nearest")
    if has_kernel and not kwargs.get("antialias") or None in (height, width):
        return resize(images, size, method=method, **kwargs)

    def weights(old, new):
        with tf.init_scope():
            columns = tf.eye(old)[tf.newaxis, :, :, tf.newaxis]
            resized = resize(columns, (new, old), method=method, **kwargs)
            return tf.constant(resized[0, :, :, 0].numpy())

    images = tf.cast(images, "float32")
    rows = tf.einsum("oh,...hwc->...owc", weights(height, size[0]), images)
    return tf.einsum("ow,...hwc->...hoc", weights(width, size[1]), rows)


def _resize_to_open(resize, images, size, *args, **kwargs):
    """Without the check of sizes, which open ones do not pass."""
    import tensorflow as tf
    from keras.src.backend.tensorflow import image

    if any(map(tf.is_tensor, size)):
        resize = image.resize
    return resize(images, size, *args, **kwargs)


def _pool(pool, inputs, pool_size, strides=None, padding="valid", *rest, **kw):
    """In three dimensions first over the last two, then over the first.

    Maxima of maxima are maxima, and so it is with averages of as many
    elements each; LiteRT pools in two dimensions.
    """
    import tensorflow as tf

    def each(value):
        return (value,) * 3 if isinstance(value, int) else tuple(value)

    if len(inputs.shape) != 5:
        return pool(inputs, pool_size, strides, padding, *rest, **kw)
    size = each(pool_size)
    steps = size if strides is None else each(strides)
    depth, *image, channels = inputs.shape[1:]
    images = tf.reshape(inputs, (-1, *image, channels))
    images = pool(images, size[1:], steps[1:], padding, *rest, **kw)
    image = images.shape[1:3]
    columns = tf.reshape(images, (-1, depth, image[0] * image[1], channels))
    columns = pool(columns, (size[0], 1), (steps[0], 1), padding, *rest, **kw)
    return tf.reshape(columns, (-1, columns.shape[1], *image, channels))


def _arg(name):
    """Without Keras's way around negative zeros, which takes bits apart.

    `-0.0` and `0.0` are equal here, and the first of them is taken.
    """

    def function(_, x, axis=None, keepdims=False):
        import tensorflow as tf

        x = tf.convert_to_tensor(x)
        rank = len(x.shape)
        flat = tf.reshape(x, (-1,)) if axis is None else x
        made = getattr(tf, name)(flat, axis=axis or 0, output_type="int32")
        if not keepdims:
            return made
        if axis is None:
            return tf.reshape(made, (1,) * rank)
        return tf.expand_dims(made, axis)

    return function


# Module, function, and what takes its place, which is given the function too.
_SUBSTITUTES = (
    (f"{_BACKEND}.numpy", "argmax", _arg("argmax")),
    (f"{_BACKEND}.numpy", "argmin", _arg("argmin")),
    (f"{_BACKEND}.math", "rsqrt", _rsqrt),
    (f"{_BACKEND}.nn", "average_pool", _pool),
    (f"{_BACKEND}.nn", "max_pool", _pool),
    ("keras.src.ops.image", "resize", _resize_to_open),
    ("tensorflow.image", "resize", _resize),
)


@contextlib.contextmanager
def substituted():
    """Inside, Keras's operations are written for LiteRT."""
    kept = []
    for module, name, function in _SUBSTITUTES:
        module = _module(module)
        original = getattr(module, name)
        kept.append((module, name, original))
        setattr(module, name, _bound(function, original))
    try:
        yield
    finally:
        for module, name, original in kept:
            setattr(module, name, original)


def _module(name):
    if name.startswith("tensorflow."):
        # A part of TensorFlow's public face is no module of its own.
        return getattr(
            importlib.import_module("tensorflow"), name.rpartition(".")[2]
        )
    return importlib.import_module(name)


def _bound(function, original):
    return lambda *args, **kwargs: function(original, *args, **kwargs)
