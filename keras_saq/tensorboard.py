"""Curves for TensorBoard, which need not be installed to write them."""


class ScalarWriter:
    """Writes numbers to a file that TensorBoard shows as curves.

    As protocol buffers: `tf.summary.scalar` would import TensorBoard.

    Args:
        folder: where the file goes.

    Raises:
        ImportError: if TensorFlow is not installed.
    """

    def __init__(self, folder):
        self._tf = require_tensorflow()
        self._writer = self._tf.summary.create_file_writer(str(folder))

    def write(self, values, step):
        """Writes a dict from curves' names to numbers."""
        made = self._tf.compat.v1.Summary()
        for name, value in values.items():
            made.value.add(tag=name, simple_value=float(value))
        with self._writer.as_default():
            self._tf.summary.experimental.write_raw_pb(
                made.SerializeToString(), step=step
            )
        self._writer.flush()

    def close(self):
        """Closes the file."""
        self._writer.close()


def require_tensorflow():
    """TensorFlow, or an error that says what it is needed for."""
    try:
        import tensorflow as tf
    except ImportError as error:
        raise ImportError(
            "`log_dir=...` writes files for TensorBoard with TensorFlow, "
            "which is not installed. Install it, or leave `log_dir` out and "
            "read the curves from `History`."
        ) from error
    return tf
