"""PlasticityCallback: what it writes, when, and that training does not notice."""

from __future__ import annotations

import numpy as np
import pytest
import torch as th
from callback_checks import callback, normalized, ppo, rows, sac, steps
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback, EveryNTimesteps
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sb3_nbsp import P3O, SBPSAC, ContinualPPO, ContinualSAC, PlasticityCallback, diagnostics
from sb3_nbsp.diagnostics.history import COLUMNS, read_covariance, read_history
from sb3_nbsp.diagnostics.measure import MEASURES, spread
from sb3_nbsp.interventions import CycleReset
from sb3_nbsp.interventions.observations import training_observations
from sb3_nbsp.interventions.own_seeds import own_seed

RESETS = ["resets", "resets_per_neuron", "share_ever_reset", "distillation_epochs"]


@pytest.mark.parametrize(
    "make",
    [
        ppo,
        lambda: ppo(P3O, reset_frequency=100, reset_rate=0.2, max_distill_epochs=2),
        lambda: ppo(ContinualPPO, env=normalized(), use_sde=True, sde_sample_freq=4),
        lambda: ppo(env="CartPole-v1"),
        sac,
        lambda: sac(SBPSAC, reset_frequency=100, reset_rate=0.2, max_distill_epochs=2, distill_states=50),
        lambda: sac(ContinualSAC, env=normalized(), use_sde=True, train_freq=10, gradient_steps=5),
    ],
    ids=["PPO", "P3O", "gSDE, VecNormalize", "discrete", "SAC", "SBPSAC", "SAC, gSDE, VecNormalize"],
)
def test_training_does_not_notice(make, tmp_path):
    plain = make().learn(400)
    watched = make().learn(400, callback(tmp_path, 100))
    assert len(rows(tmp_path)) >= 2
    for name, value in plain.policy.state_dict().items():
        assert th.equal(value, watched.policy.state_dict()[name]), name


def test_rows_of_ppo(tmp_path):
    ppo().learn(1_000, callback(tmp_path, 250))
    found = rows(tmp_path)
    assert list(found[0]) == COLUMNS
    # The ends of the rollouts behind each multiple
    assert steps(tmp_path) == [0, 300, 500, 800, 1000]
    for row in found:
        assert all(np.isfinite(float(row[name])) for name in MEASURES)
        assert (row["ep_rew_mean"] == "") == (row["step"] == "0")  # no episode was over
        assert all(row[name] == "" for name in RESETS)  # plain SB3 resets nothing
    assert read_covariance(tmp_path).shape == (8, 8)


def test_rows_of_sac_and_one_at_the_end(tmp_path):
    sac(train_freq=7).learn(200, callback(tmp_path, 50))
    assert steps(tmp_path) == [0, 56, 105, 154, 203]
    sac().learn(130, callback(tmp_path, 50))
    assert steps(tmp_path) == [0, 50, 100, 130]
    # No episode was over
    assert rows(tmp_path)[0]["ep_rew_mean"] == ""


@pytest.mark.parametrize("make", [ppo, lambda: sac(learning_starts=60)], ids=["PPO", "SAC"])
def test_the_first_row_is_the_policy_that_has_not_learned_yet(make, tmp_path):
    class Untrained(BaseCallback):
        """Measures on its own, at the last moment before the first update."""

        found: dict[str, float] | None = None

        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            if self.found is None and self.num_timesteps > getattr(self.model, "learning_starts", 0):
                assert self.model._n_updates == 0
                draw, actions = (own_seed(self.model, 0, purpose) for purpose in (400, 401))
                states = spread(training_observations(self.model, 60, draw), 60)
                self.found = diagnostics(self.model, states, 0.1, 8, actions).scalars()

    model, untrained, fresh = make(), Untrained(), make()
    model.learn(200, [untrained, callback(tmp_path)])
    start, end = (dict(zip(MEASURES, (float(row[name]) for name in MEASURES), strict=True)) for row in rows(tmp_path))
    assert start == untrained.found and steps(tmp_path) == [0, 200]
    layers = (fresh.policy.mlp_extractor.policy_net if make is ppo else fresh.actor.latent_pi)[::2]
    norms = th.cat([layer.weight.abs().sum(1) for layer in layers])
    assert start["weight_norm"] == pytest.approx(norms.mean().item()) != end["weight_norm"]


def test_the_start_is_waited_for_over_calls_that_do_not_learn(tmp_path):
    model, again = sac(learning_starts=60), callback(tmp_path)
    model.learn(40, again)
    assert steps(tmp_path) == [40]
    model.learn(200, again, reset_num_timesteps=False)
    assert steps(tmp_path) == [40, 0, 200, 240]
    history = read_history(tmp_path)
    assert history["step"].tolist() == [0, 40, 200, 240]
    model.learn(100, callback(tmp_path), reset_num_timesteps=False)  # a trained agent has no start of its own
    assert steps(tmp_path).count(0) == 1


def test_parallel_environments(tmp_path):
    ppo(env=make_vec_env("Pendulum-v1", n_envs=3)).learn(900, callback(tmp_path, 250))
    assert steps(tmp_path) == [0, 300, 600, 900]


def test_a_row_holds_what_diagnostics_says_of_the_collecting_policy(tmp_path):
    class Expect(BaseCallback):
        """Computes on its own what the record has to be."""

        expected: dict[str, float]

        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            rollout = self.model.rollout_buffer
            assert rollout.full
            states = spread(th.as_tensor(rollout.observations.reshape(-1, 3)), 60)
            seed = own_seed(self.model, self.num_timesteps, purpose=401)
            self.expected = diagnostics(self.model, states, 0.3, 8, seed).scalars()

    expect = Expect()
    ppo().learn(100, [expect, callback(tmp_path, 100, dormant_threshold=0.3)])
    _, row = rows(tmp_path)
    assert {name: float(row[name]) for name in MEASURES} == expect.expected


def test_the_states_of_sac_are_normalized_draws_from_the_buffer(tmp_path):
    model = sac(env=normalized())
    model.learn(100, callback(tmp_path, 1_000))
    _, row = rows(tmp_path)
    states = training_observations(model, 60, own_seed(model, 100, purpose=400))
    expected = diagnostics(model, states, 0.1, 8, own_seed(model, 100, purpose=401)).scalars()
    assert {name: float(row[name]) for name in MEASURES} == expected


def test_an_empty_buffer_is_waited_for(tmp_path):
    class Emptied(BaseCallback):
        """Empties the buffer, as the start of a phase does."""

        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            if self.num_timesteps in (50, 51, 100):
                self.model.replay_buffer.reset()

    # It learns nothing, or an empty buffer would be sampled
    sac(learning_starts=1_000).learn(100, [Emptied(), callback(tmp_path, 50)])
    assert steps(tmp_path) == [52]


def test_resets_and_distillation(tmp_path):
    model = ppo(P3O, reset_frequency=200, reset_rate=0.1, distill_threshold=0.0, max_distill_epochs=3)
    model.learn(1_000, callback(tmp_path, 200))
    # Of 30 neurons, 3 at each of the resets after 200, 400, ... steps; the row of a rollout is written before its reset
    assert [row["resets"] for row in rows(tmp_path)] == ["0.0", "0.0", "3.0", "6.0", "9.0", "12.0"]
    last = rows(tmp_path)[-1]
    assert float(last["resets_per_neuron"]) == pytest.approx(12 / 30)
    assert float(last["share_ever_reset"]) == pytest.approx(12 / 30)
    assert float(last["distillation_epochs"]) == 4 * 3


def test_several_resets_add_up(tmp_path):
    both = [CycleReset(100, 0.1), CycleReset(100, 0.2)]
    ppo(ContinualPPO, interventions=both).learn(200, callback(tmp_path, 100))
    # The first 10 % were reset twice, the next once
    last = rows(tmp_path)[-1]
    assert float(last["resets"]) == 3 + 6
    assert float(last["share_ever_reset"]) == pytest.approx(6 / 30)
    assert last["distillation_epochs"] == ""


@pytest.mark.parametrize("make", [ppo, sac])
def test_tensorboard_has_every_record(make, tmp_path):
    model = make()
    model.set_logger(configure(str(tmp_path / "tb"), ["tensorboard"]))
    # Without the agent's own dumps
    model.learn(400, callback(tmp_path, 100), log_interval=10_000)
    events = EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    for name in [*MEASURES, "ep_rew_mean"]:
        written = {int(row["step"]): float(row[name]) for row in rows(tmp_path) if row[name]}
        logged = {event.step: event.value for event in events.Scalars(f"plasticity/{name}")}
        assert logged == pytest.approx(written, rel=1e-6)
    assert "plasticity/resets" not in events.Tags()["scalars"]


def test_without_a_folder_it_only_logs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = ppo()
    model.set_logger(configure(None, []))
    model.learn(200, PlasticityCallback(100, n_states=50, n_gradient_states=4))
    assert not list(tmp_path.iterdir())


def test_verbose_prints(tmp_path, capsys):
    ppo().learn(100, callback(None, 100, verbose=1))
    assert "Step 100: dormant_ratio " in capsys.readouterr().out


@pytest.mark.parametrize(
    "options, error",
    [
        ({"record_freq": 0}, "record_freq must be a whole number"),
        ({"record_freq": 1.5}, "record_freq must be a whole number"),
        ({"n_states": 0}, "n_states must be a whole number"),
        ({"dormant_threshold": "low"}, "dormant_threshold must be a number in"),
        ({"n_gradient_states": 0}, "n_gradient_states must be a whole number"),
        ({"plot": "yes"}, "plot must be one of True, False"),
    ],
)
def test_bad_options_are_a_clear_error(options, error):
    with pytest.raises(ValueError, match=error):
        PlasticityCallback(**options)


@pytest.mark.parametrize("kind", ["EveryNTimesteps", "callback_after_eval", "callback_on_new_best"])
def test_inside_another_callback_it_records_at_the_others_events(kind, tmp_path):
    callback = PlasticityCallback(1, tmp_path, n_states=8, n_gradient_states=4)
    evaluation = {"eval_env": make_vec_env("CartPole-v1"), "n_eval_episodes": 1, "eval_freq": 20}
    outer = EveryNTimesteps(20, callback) if kind == "EveryNTimesteps" else EvalCallback(**evaluation, **{kind: callback})
    PPO("MlpPolicy", "CartPole-v1", n_steps=32, batch_size=32, n_epochs=1, seed=0, device="cpu").learn(32, outer)
    assert read_history(tmp_path)["step"].tolist() == [20]
    assert (tmp_path / "plasticity.png").exists()
