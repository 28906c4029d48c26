"""The tool that measures MinAtar's constants continues its training."""

from pathlib import Path

import pytest
import torch as th

pytest.importorskip("minatar", reason="MinAtar is not installed: pip install 'sb3_nbsp[minatar]'")

from tools import minatar_scores


def test_training_continues_where_it_was_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minatar_scores, "SAVE_FREQ", 40)
    learn = minatar_scores.DQN.learn
    with monkeypatch.context() as context:
        # Cut off: training is over after 60 of 100 steps, and nothing is saved then
        context.setattr(minatar_scores.DQN, "learn", lambda self, total, **kwargs: learn(self, 60, **kwargs))
        context.setattr(minatar_scores, "save_checkpoint", lambda *_: None)
        minatar_scores.train("Breakout", 100, 1, tmp_path)
    lengths = []

    def counted(self: minatar_scores.DQN, total: int, **kwargs: object) -> minatar_scores.DQN:
        lengths.append((self.num_timesteps, total))
        return learn(self, total, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(minatar_scores.DQN, "learn", counted)
    model = minatar_scores.train("Breakout", 100, 1, tmp_path)
    ((start, rest),) = lengths
    assert 40 <= start <= 60 and start + rest == model.num_timesteps == 100
    # Done: it is loaded, and trained no further
    again = minatar_scores.train("Breakout", 100, 1, tmp_path)
    assert len(lengths) == 1
    assert all(th.equal(value, again.policy.state_dict()[name]) for name, value in model.policy.state_dict().items())
