"""How long a training is: from epochs, steps and a budget to steps alone."""

import math

from clearcall.params import Training


def scheduled(training: Training, pairs: int, budget: float) -> Training:
    """Return the training with `steps`, `validate_every` and `warmup_steps` as they will be run.

    An epoch has a patch of each of the training `pairs`. `budget`, above 0 and at most 1, is the share of all three
    that is run, so that a shorter training has as many validations and the same schedule in small.
    """
    epoch = math.ceil(pairs / (training.batch_size * training.devices * training.nodes))
    steps, every = training.steps, training.validate_every
    if training.epochs is not None:
        steps, every = training.epochs * epoch, epoch
    return training.model_copy(
        update={
            "steps": math.ceil(steps * budget),
            "validate_every": math.ceil(every * budget),
            "warmup_steps": math.ceil(training.warmup_steps * budget),
        }
    )
