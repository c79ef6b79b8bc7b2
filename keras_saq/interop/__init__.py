"""Other libraries, each in one module that imports it only where it is used.

`keras_saq.interop.tfmot`: TensorFlow Model Optimization, on tf_keras layers.
"""
