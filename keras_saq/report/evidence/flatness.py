"""Sharpness and loss landscapes of several models, on the same data."""

import dataclasses

from keras_saq.sharpness import loss_landscape
from keras_saq.sharpness import measure_sharpness


def measure(models, data, loss, rho, points, span, batch_size, seed, say):
    """Dict: sharpness of each model, and its landscape where asked for.

    Args:
        models: dict from labels to models; one that is not compiled is
            measured with the loss of the first.
        data: `(x, y)`.
        loss: a Keras loss, or `None`: that of the compiled models.
        rho: radius of the ascent.
        points: of the landscape along a direction; 0 for no landscape.
        span: how far the landscape goes.
        batch_size: of the measurements.
        seed: of the directions, the same for all models.
        say: `function(text)` that tells what is being done.
    """
    first = next(iter(models.values()))
    sharpness, losses, steps = {}, {}, None
    for label, model in models.items():
        chosen = loss
        if loss is None and not getattr(model, "compiled", False):
            chosen = getattr(first, "loss", None)
        say(f"sharpness of {label}")
        found = measure_sharpness(
            model,
            data,
            rho=rho,
            batch_size=batch_size,
            loss=chosen,
            max_iterations=20,
            seed=seed,
        )
        sharpness[label] = dataclasses.asdict(found)
        if points:
            say(f"loss landscape of {label}, {points}x{points} points")
            drawn = loss_landscape(
                model,
                data,
                dimensions=2,
                span=span,
                points=points,
                seed=seed,
                batch_size=batch_size,
                loss=chosen,
            )
            losses[label], steps = drawn.losses, drawn.steps
    return {
        "samples": len(data[1]),
        "by_model": sharpness,
        "landscape": {"steps": steps, "losses": losses} if points else None,
    }
