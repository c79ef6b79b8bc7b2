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


# Module, function, and what takes its place, which is given the function too.
_SUBSTITUTES = (
    (f"{_BACKEND}.math", "rsqrt", _rsqrt),
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
