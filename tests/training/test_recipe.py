"""Recipes: values that can be written down, compared and stretched; wrong ones say what is wrong."""

import json
from dataclasses import replace

import pytest

from modernbert.errors import TrainingError
from modernbert.training.optim import AdamWConfig
from modernbert.training.recipe import as_data, require_same
from modernbert.training.schedule import BatchWarmup, StepRates
from tests.training.small_recipe import small_recipe


def data_of(recipe):
    return json.loads(json.dumps(as_data(recipe)))


def test_a_recipe_goes_through_json_unchanged():
    assert data_of(small_recipe()) == as_data(small_recipe())


def test_the_same_recipe_may_go_on():
    require_same(data_of(small_recipe()), as_data(small_recipe()), phase=0, where="runs/x")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 18}, "seed: 17 -> 18"),
        ({"z_loss": 0.1}, "z_loss: 0.0 -> 0.1"),
        ({"optimizer": AdamWConfig()}, 'optimizer.is: "StableAdamWConfig" -> "AdamWConfig"'),
    ],
)
def test_a_changed_field_is_named(changes, named):
    with pytest.raises(TrainingError) as caught:
        require_same(
            as_data(small_recipe()), as_data(replace(small_recipe(), **changes)), phase=0, where="runs/x"
        )
    assert "runs/x was begun with another recipe" in str(caught.value)
    assert named in str(caught.value)
    assert "save_every_tokens" in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [{"save_every_tokens": 1}, {"evaluate_every_tokens": 1}, {"num_kept": 9}, {"max_skipped_steps": 0}],
)
def test_what_changes_nothing_that_is_learned_may_be_changed(changes):
    require_same(as_data(small_recipe()), as_data(replace(small_recipe(), **changes)), phase=0, where="x")


def test_a_phase_that_has_not_begun_may_be_changed_and_one_that_has_may_not():
    old = small_recipe()
    first, second = old.phases
    later = replace(old, phases=(first, replace(second, learning_rate=1e-4)))
    require_same(as_data(old), as_data(later), phase=0, where="x")
    with pytest.raises(TrainingError, match=r"phases\.1\.learning_rate: 0\.002 -> 0\.0001"):
        require_same(as_data(old), as_data(later), phase=1, where="x")
    more = replace(old, phases=(*old.phases, replace(second, name="again")))
    require_same(as_data(old), as_data(more), phase=1, where="x")


def test_a_phase_at_constant_rates_may_be_made_longer_or_shorter_while_it_runs():
    old = small_recipe()

    def changed(number, **changes):
        phases = list(old.phases)
        phases[number] = replace(phases[number], **changes)
        return replace(old, phases=tuple(phases))

    for tokens in (1, 10_000):
        require_same(as_data(old), as_data(changed(0, tokens=tokens)), phase=0, where="x")
    with pytest.raises(TrainingError, match=r"phases\.0\.tokens"):  # it is over
        require_same(as_data(old), as_data(changed(0, tokens=1)), phase=1, where="x")
    with pytest.raises(TrainingError, match=r"phases\.1\.tokens"):  # its rate falls over just so many
        require_same(as_data(old), as_data(changed(1, tokens=10_000)), phase=1, where="x")
    curriculum = changed(0, mask_rate=StepRates(rates=(0.3, 0.2)))
    longer = replace(curriculum, phases=(replace(curriculum.phases[0], tokens=9000), old.phases[1]))
    with pytest.raises(TrainingError, match=r"phases\.0\.tokens"):
        require_same(as_data(curriculum), as_data(longer), phase=0, where="x")


def test_a_recipe_stretches_with_its_courses():
    recipe = small_recipe()
    first = replace(recipe.phases[0], rows=BatchWarmup(first=1, last=4, tokens=1000))
    long = replace(recipe, phases=(first, recipe.phases[1])).scaled_to(10 * recipe.num_tokens)
    assert [phase.tokens for phase in long.phases] == [36_000, 18_000]
    assert long.phases[0].schedule.warmup_tokens == 4000
    assert long.phases[0].rows.tokens == 10_000
    assert long.phases[1].schedule.total_tokens == 18_000
    assert [phase.learning_rate for phase in long.phases] == [5e-3, 2e-3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"phases": ()}, "has no phases"),
        ({"encoder": None}, "needs an encoder or start_from"),
        ({"start_from": "x"}, "needs an encoder or start_from, and not both"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(changes, message):
    with pytest.raises(TrainingError, match=message):
        replace(small_recipe(), **changes)


def test_phases_need_names_of_their_own():
    phase = small_recipe().phases[0]
    with pytest.raises(TrainingError, match="names of their own"):
        replace(small_recipe(), phases=(phase, phase))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": 0}, "tokens of at least 1"),
        ({"seq_len": 2}, "seq_len of at least 3"),
        ({"learning_rate": 0.0}, "learning_rate above 0"),
        ({"seq_len": 128}, "a row of 64 tokens cannot hold a sequence of 128"),
    ],
)
def test_a_phase_that_makes_no_sense_is_refused(changes, message):
    with pytest.raises(TrainingError, match=message):
        replace(small_recipe().phases[0], **changes)


def test_a_recipe_holds_plain_values_only():
    with pytest.raises(TrainingError, match="plain values only"):
        as_data({"f": print})
