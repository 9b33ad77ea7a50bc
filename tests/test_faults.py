"""The quick part of the fault test-bench: a few of each kind; ``make faults`` has them all."""

import checkpoints
import kills
import long_run
import pytest
import resume


def test_a_run_that_is_killed_and_whose_disk_is_full_ends_as_any_other() -> None:
    story = kills.run("toy", kills=6, full=2)
    assert story.problems == []
    assert story.kills == 6 and sum(story.inside.values()) == 3 and story.full == 2
    assert story.partial > 0  # some died while they wrote


def test_a_recipe_with_workers_that_is_killed_ends_as_any_other() -> None:
    story = kills.run("upernet-recipe", kills=2, full=0, spare=4)
    assert story.problems == []
    assert story.kills == 2 and sum(story.inside.values()) == 1


# the warm-up ends after 6 iterations, the milestone is after 8
@pytest.mark.parametrize(
    ("recipe", "stop", "length"), [("mask-rcnn-recipe", 7, 12), ("upernet-recipe", 5, 10)]
)
def test_a_stopped_recipe_goes_on_exactly_over_a_change_of_its_learning_rate(
    recipe: str, stop: int, length: int, capfd: pytest.CaptureFixture[str]
) -> None:
    assert resume.run(recipe, workers=[2], stops=[stop], length=length) == []


def test_mutated_checkpoints_do_nothing() -> None:
    found = checkpoints.run(60)
    assert sum(found.values()) == 60
    assert {what: found[what] for what in checkpoints.BAD if found[what]} == {}
    assert found["refused"] > 30


def test_a_stopped_segmentor_goes_on_exactly(capfd: pytest.CaptureFixture[str]) -> None:
    assert resume.run("segmentation", workers=[0], stops=[3]) == []


def test_growth_is_told() -> None:
    flat = [long_run.Sample(100, 50, at, at) for at in range(40)]
    assert not any(long_run.too_much(*each, 8, 15) for each in named(long_run.grown(flat)))
    leak = [long_run.Sample(100 + at, 50, at, at**2) for at in range(40)]
    bad = [each[0] for each in named(long_run.grown(leak)) if long_run.too_much(*each, 8, 15)]
    assert bad == ["trainer MB", "workers ms"]


def named(found: dict[str, tuple[float, float]]) -> list[tuple[str, float, float]]:
    return [(name, *pair) for name, pair in found.items()]
