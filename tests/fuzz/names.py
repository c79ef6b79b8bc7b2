"""Names of the targets, for who does not want to import TensorFlow."""

TARGETS = (
    "tflite inspect",
    "tflite verify",
    "keras export",
    "keras quantize",
    "h5 quantize",
    "json policy",
    "json config",
    "json record",
    "json latency",
    "toml config",
    "npz samples",
    "npz packed",
    "npz inputs",
    "npy inputs",
)
