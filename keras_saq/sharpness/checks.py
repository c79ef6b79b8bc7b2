"""Refusals: what would silently compute something other than SAQ."""

import keras

_MEND = (
    "A function inside the layer's `call` was traced in one pass and run "
    "again from a cache in the other, with the weights of then. Remove its "
    "`tf.function` (or `jax.jit`) decorator."
)


def check_first_pass(added, first):
    """Raises if a quantized weight was made but never read.

    Args:
        added: the participants that are perturbed after quantization.
        first: the `Pass` at the clean weights.
    """
    for participant, gradient in zip(added, first.eps_gradients):
        key = id(participant.variable)
        called = key in first.quantized
        if called and gradient is None and not first.overlay_reads[key]:
            raise RuntimeError(
                "The perturbation of the weight "
                f"'{participant.variable.path}' does not reach the loss. "
                + _MEND
            )


def check_reads(model, first, second):
    """Raises if the two passes did not read the same variables equally often.

    Then a part of the model did not see the perturbation. The check costs
    nothing: it is made when the step is traced.
    """
    for variable in model.trainable_variables:
        before = first.reads[id(variable)]
        after = second.reads[id(variable)]
        if before != after:
            raise RuntimeError(
                f"The weight '{variable.path}' was read {before} times in "
                f"the first pass of the SAQ step and {after} times in the "
                "second, so that its perturbation did not reach the second "
                "pass. " + _MEND
            )


def check_remat(model):
    """Raises for a `keras.RematScope` on TensorFlow.

    `tf.recompute_grad` computes with the variables, not with what stands for
    them in the passes of a step, and returns wrong gradients.
    """
    for layer in model._flatten_layers():
        if getattr(layer, "_remat_mode", None) is not None:
            raise ValueError(
                f"The layer '{layer.name}' was made inside a "
                "`keras.RematScope`, which on the TensorFlow backend gives "
                "wrong gradients in the SAQ step. Make the model outside of "
                "the scope, or use the JAX backend, where it is exact: set "
                "the environment variable KERAS_BACKEND=jax."
            )


def check_strategy(strategy):
    """Raises for the distribution strategies that Keras cannot `fit` with.

    Args:
        strategy: a `tf.distribute.Strategy`.
    """
    name = type(strategy).__name__
    refused = ("MultiWorker", "CollectiveAllReduce", "ParameterServer")
    if name.startswith(refused):
        raise ValueError(
            f"`SAQModel.fit` does not run under `{name}`: `keras.Model.fit` "
            "passes its per-replica values to functions that take tensors, "
            "and fails. On one machine use `tf.distribute.MirroredStrategy`. "
            "On several, use the JAX backend (KERAS_BACKEND=jax):\n\n"
            "    keras.distribution.initialize(addresses, num_processes, "
            "process_id)\n"
            "    keras.distribution.set_distribution(\n"
            "        keras.distribution.DataParallel("
            "auto_shard_dataset=False))\n"
        )


def check_sync(sync_perturbation, num_devices):
    """Raises where a perturbation per device is asked for and not possible.

    Args:
        sync_perturbation: the option of `SAQModel`.
        num_devices: over how many devices a batch is distributed.
    """
    if sync_perturbation is False and num_devices > 1:
        raise ValueError(
            "`sync_perturbation=False` (a perturbation of its own on each "
            "device) exists on the TensorFlow backend. On JAX a step "
            "computes with the global batch, so its perturbation is always "
            f"synchronised, here over {num_devices} devices. Leave "
            "`sync_perturbation` at None."
        )


def jax_device_count():
    """Over how many devices Keras distributes a batch."""
    distribution = keras.distribution.distribution()
    if distribution is None:
        return 1
    return int(distribution.device_mesh.devices.size)
