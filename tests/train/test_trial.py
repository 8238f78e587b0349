"""When a growth is taken back, against numbers worked out by hand."""

from __future__ import annotations

import pytest

from graphgrow.errors import TrainingError
from graphgrow.train.snapshot import Snapshot
from graphgrow.train.trial import Trial
from tests.train import small


def test_a_growth_is_judged_once_by_the_best_of_the_rounds_after_it() -> None:
    before = Snapshot.of(small.graph(), None)
    trial = Trial(2, 0.1)  # the best before is 0.4, so the limit is 0.44
    assert trial.wanted
    for after, stays in (([0.5, 0.43], True), ([0.43, 0.5], True), ([0.6, 0.441], False), ([0.5, 0.46, 0.5], False)):
        trial.begin(before, [0.9, 0.4, None])
        open_still = [trial.undecided]
        assert trial.failure(after[:1]) is None, "too early"
        open_still.append(trial.undecided)
        failure = trial.failure(after)
        assert [*open_still, trial.undecided] == [True, True, False]
        assert trial.failure(after) is None, "once"
        assert (failure is None) == stays
        if failure is not None:
            assert failure.before is before
            assert failure.numbers == {"metric_before": 0.4, "metric_after": min(after), "margin": 0.1}
            assert failure.reason.endswith("is not below 0.44, 10.0% more than the 0.4 before the growth")


def test_without_a_metric_nothing_can_be_judged_and_without_rounds_nothing_is() -> None:
    before = Snapshot.of(small.graph(), None)
    for earlier, later in ([0.5], [None]), ([None], [0.5]):
        trial = Trial(1, 0.0)
        trial.begin(before, earlier)
        with pytest.raises(TrainingError, match=r"a rollback needs a metric; call propose\(validation_loss\)"):
            trial.failure(later)
    assert not Trial(None, 0.0).wanted
    assert Trial(None, 0.0).failure([0.5]) is None
