"""How many steps a training has, by epochs and budget."""

from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from clearcall.params import Params, Training
from clearcall.training.train import scheduled


def test_the_schedule_by_hand(committed: Params) -> None:
    training = committed.distill_student.training.model_copy(
        update={"batch_size": 4, "steps": 100, "validate_every": 30, "warmup_steps": 10}
    )

    def run(training: Training, budget: float) -> tuple[int, int, int]:
        found = scheduled(training, 30, budget)
        return found.steps, found.validate_every, found.warmup_steps

    assert run(training, 1) == (100, 30, 10)
    assert run(training, 0.25) == (25, 8, 3)
    # 30 pairs are 8 batches of 4, the last one not full.
    assert run(training.model_copy(update={"epochs": 5}), 1) == (40, 8, 10)
    assert run(training.model_copy(update={"epochs": 5}), 0.5) == (20, 4, 5)


@examples(max_examples=50)
@given(steps=st.integers(1, 500), every=st.integers(1, 400), budget=st.floats(0.001, 1))
def test_a_budget_keeps_the_number_of_validations_and_never_ends_before_the_first(
    committed: Params, steps: int, every: int, budget: float
) -> None:
    training = committed.distill_student.training
    found = scheduled(training.model_copy(update={"steps": steps, "validate_every": every}), 10, budget)
    assert 1 <= found.steps <= steps
    assert 1 <= found.validate_every <= every
    assert found.steps // found.validate_every <= steps // every + 1
