"""PlasticityCallback: what it writes, when, and that training does not notice."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from matplotlib.figure import Figure
from matplotlib.image import imread
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback, EveryNTimesteps
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecNormalize
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sb3_nbsp import P3O, SBPSAC, ContinualPPO, ContinualSAC, PlasticityCallback, diagnostics
from sb3_nbsp.diagnostics.figure import TITLES, _draw_curves, plot_plasticity
from sb3_nbsp.diagnostics.history import COLUMNS, add_record, open_history, read_covariance, read_history
from sb3_nbsp.diagnostics.measure import MEASURES, spread
from sb3_nbsp.interventions import CycleReset
from sb3_nbsp.interventions.base import own_seed
from sb3_nbsp.interventions.observations import training_observations

RESETS = ["resets", "resets_per_neuron", "share_ever_reset", "distillation_epochs"]


def ppo(algo: type[PPO] = PPO, env: Any = "Pendulum-v1", **options: Any) -> PPO:
    kwargs = {"net_arch": [20, 10]}
    return algo(
        "MlpPolicy", env, n_steps=100, batch_size=50, n_epochs=2, policy_kwargs=kwargs, seed=1, device="cpu", **options
    )


def sac(algo: type[SAC] = SAC, env: Any = "Pendulum-v1", **options: Any) -> SAC:
    kwargs = {"net_arch": [20, 10]}
    small = {"learning_starts": 20, "batch_size": 16, "buffer_size": 1_000}
    return algo("MlpPolicy", env, policy_kwargs=kwargs, seed=1, device="cpu", **{**small, **options})


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "plasticity.csv").open() as file:
        return list(csv.DictReader(file))


def steps(folder: Path) -> list[int]:
    return [int(row["step"]) for row in rows(folder)]


def callback(folder: Path | None, record_freq: int = 200, **options: Any) -> PlasticityCallback:
    return PlasticityCallback(record_freq, folder, **{"n_states": 60, "n_gradient_states": 8, "plot": False, **options})


def normalized() -> VecNormalize:
    return VecNormalize(make_vec_env("Pendulum-v1", n_envs=2, seed=3))


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


def test_a_dashed_line_marks_the_start_in_the_picture(tmp_path):
    images = []
    for name, first in (("with", 0), ("without", 50)):
        (tmp_path / name).mkdir()
        open_history(tmp_path / name)
        for step, height in ((first, 3.0), (100, 1.0), (200, 2.0)):
            add_record(tmp_path / name, step, {"weight_norm": height, "share_ever_reset": height / 10}, np.eye(3))
        histories = {name: read_history(tmp_path / name)}
        for measure in ("weight_norm", "share_ever_reset"):
            panel = Figure().subplots()
            _draw_curves(panel, histories, measure)
            dashed = [line for line in panel.lines if line.get_linestyle() == "--"]
            images.append([line.get_ydata()[0] for line in dashed])
    assert images == [[3.0], [], [], []]  # counts start at zero anyway


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


def test_the_picture(tmp_path):
    ppo(P3O, reset_frequency=100, max_distill_epochs=2).learn(300, callback(tmp_path / "new", 100, plot=True))
    image = imread(tmp_path / "new" / "plasticity.png")
    assert image.shape[0] > 600 and image.shape[1] > 1_000
    assert image[..., :3].std() > 0.05  # not empty


def test_continuing_a_run(tmp_path):
    model = ppo()
    model.learn(400, callback(tmp_path))
    first = (tmp_path / "plasticity.csv").read_text()
    model.learn(400, callback(tmp_path), reset_num_timesteps=False)
    assert (tmp_path / "plasticity.csv").read_text().startswith(first)
    assert steps(tmp_path) == [0, 200, 400, 600, 800]
    # A loaded checkpoint: rows behind it are of a future that did not happen
    model.save(tmp_path / "model")
    model.learn(400, callback(tmp_path), reset_num_timesteps=False)
    assert steps(tmp_path)[-1] == 1200
    loaded = PPO.load(tmp_path / "model", gym.make("Pendulum-v1"))
    loaded.learn(200, callback(tmp_path), reset_num_timesteps=False)
    assert steps(tmp_path) == [0, 200, 400, 600, 800, 1000]
    # From step 0 it begins anew
    ppo().learn(200, callback(tmp_path))
    assert steps(tmp_path) == [0, 200]


def test_the_same_callback_twice(tmp_path):
    model, again = ppo(), callback(tmp_path)
    model.learn(300, again)
    model.learn(300, again, reset_num_timesteps=False)
    assert steps(tmp_path) == [0, 200, 300, 400, 600]


def test_half_a_row_is_not_read_and_not_continued(tmp_path):
    ppo().learn(400, callback(tmp_path))
    path = tmp_path / "plasticity.csv"
    whole = path.read_text()
    last = whole.splitlines()[-1]
    for half in (last[:-1], last[: len(last) // 2], last):
        path.write_text(whole + half)
        assert read_history(tmp_path)["step"].tolist() == [0, 200, 400]
        open_history(tmp_path, 400)
        assert path.read_text() == whole


@pytest.mark.timeout(120)
def test_a_killed_run_keeps_its_rows(tmp_path):
    code = f"""
from stable_baselines3 import PPO
from sb3_nbsp import PlasticityCallback
model = PPO("MlpPolicy", "Pendulum-v1", n_steps=64, batch_size=64, n_epochs=1, device="cpu")
model.learn(10_000_000, PlasticityCallback(64, {str(tmp_path)!r}, n_states=64, n_gradient_states=4))
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        path, deadline = tmp_path / "plasticity.csv", time.monotonic() + 100
        while not path.exists() or path.read_text().count("\n") < 5:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    history = read_history(tmp_path)
    assert len(history["step"]) >= 4
    assert history["step"].tolist() == [64 * i for i in range(len(history["step"]))]
    assert np.isfinite(history["weight_norm"]).all()
    plot_plasticity({"killed": tmp_path}, tmp_path / "killed.png")
    assert (tmp_path / "killed.png").exists()


def test_several_runs_in_one_picture(tmp_path):
    for name, height in (("a", 1.0), ("b", 2.0)):
        (tmp_path / name).mkdir()
        open_history(tmp_path / name)
        for step in (100, 200):
            add_record(tmp_path / name, step, {"weight_norm": height, "dormant_ratio": None}, np.eye(3))
    runs = {name: tmp_path / name for name in ("a", "b")}
    history = read_history(tmp_path / "b")
    assert history["weight_norm"].tolist() == [2.0, 2.0] and np.isnan(history["dormant_ratio"]).all()
    plot_plasticity(runs, tmp_path / "both.png", measures=["weight_norm", "dormant_ratio"], title="both")
    plot_plasticity(runs, tmp_path / "all.png")
    assert imread(tmp_path / "both.png").shape == imread(tmp_path / "all.png").shape  # what no run has is left out
    assert set(TITLES) == {*COLUMNS} - {"step", "resets"}
    with pytest.raises(ValueError, match=r"measures must be among ep_rew_mean, .* not weight"):
        plot_plasticity(runs, tmp_path / "no.png", measures=["weight"])
    with pytest.raises(FileNotFoundError):
        plot_plasticity({"c": tmp_path / "c"}, tmp_path / "no.png")
    assert not (tmp_path / "no.png").exists()


def test_a_run_without_records_can_be_drawn(tmp_path):
    open_history(tmp_path)
    plot_plasticity({"empty": tmp_path}, tmp_path / "empty.png")
    assert (tmp_path / "empty.png").exists()


@pytest.mark.parametrize("text", ["step,phase,task\n1,2,3\n", ""])
def test_another_file_of_that_name_is_not_overwritten(text, tmp_path):
    (tmp_path / "plasticity.csv").write_text(text)
    with pytest.raises(ValueError, match=r"plasticity.csv is no history of plasticity"):
        open_history(tmp_path, 10)
    assert (tmp_path / "plasticity.csv").read_text() == text


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


def test_a_policy_that_cannot_be_measured_is_an_error_before_training():
    contrib = pytest.importorskip("sb3_contrib")
    model = contrib.ARS("LinearPolicy", "CartPole-v1", device="cpu")
    with pytest.raises(ValueError, match=r"policy must be an ActorCriticPolicy, or one of .*, not a ARSLinearPolicy"):
        model.learn(100, callback(None))
    assert model.num_timesteps == 0


def test_without_matplotlib(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib" or name == "sb3_nbsp.diagnostics.figure"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ValueError, match=r"PlasticityCallback\(plot=True\) needs matplotlib: pip install 'sb3_nbsp\[plots\]'"):
        PlasticityCallback(folder=tmp_path)
    ppo().learn(200, callback(tmp_path))
    assert steps(tmp_path) == [0, 200]


def test_importing_the_package_does_not_import_matplotlib():
    code = "import sys, sb3_nbsp; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


class Keep(BaseCallback):
    """Keeps what the policy has seen, and ends training at step ``stop``."""

    def __init__(self, stop: int) -> None:
        super().__init__()
        self.stop, self.seen = stop, []

    def _on_step(self) -> bool:
        self.seen.append(self.locals["obs_tensor"].numpy().copy())
        return self.num_timesteps < self.stop


@pytest.mark.parametrize("algo", [PPO, P3O])
@pytest.mark.parametrize("n_envs", [1, 2])
@pytest.mark.filterwarnings("ignore:CycleReset renews no neuron")
def test_a_rollout_that_was_stopped_is_measured_as_far_as_it_went(algo, n_envs, tmp_path):
    model, keep = ppo(algo, make_vec_env("Pendulum-v1", n_envs, seed=0)), Keep(stop=131 * n_envs)
    model.learn(400, [keep, callback(tmp_path, 1_000, n_states=1_000)])
    states = np.concatenate(keep.seen[100:130])  # the 131st step was not stored
    assert training_observations(model, 1, seed=0).numpy() == pytest.approx(states)
    expected = diagnostics(model, states, n_gradient_states=8, seed=own_seed(model, 131 * n_envs, purpose=401)).scalars()
    assert {name: float(rows(tmp_path)[-1][name]) for name in MEASURES} == pytest.approx(expected, rel=1e-5)


def test_a_rollout_that_was_stopped_at_its_first_step_is_not_measured(tmp_path):
    model = ppo()
    model.learn(400, [Keep(stop=101), callback(tmp_path, 50)])
    assert steps(tmp_path) == [0, 100]
    with pytest.raises(ValueError, match="buffer of this PPO is empty"):
        training_observations(model, 10, seed=0)


def test_policies_with_memory_are_refused_before_training():
    model = RecurrentPPO("MlpLstmPolicy", "Pendulum-v1", n_steps=64, batch_size=32)
    with pytest.raises(ValueError, match="RecurrentActorCriticPolicy also needs lstm_states, episode_starts"):
        model.learn(64, callback(None))
    assert model.num_timesteps == 0


def compile_in_place(policy: Any) -> None:
    policy.mlp_extractor.policy_net.compile(backend="eager")


def compile_network(policy: Any) -> None:
    policy.mlp_extractor.policy_net = th.compile(policy.mlp_extractor.policy_net, backend="eager")


@pytest.mark.parametrize("how", ["policy", compile_in_place, compile_network], ids=["the policy", "in place", "a network"])
def test_compiled_policies_are_measured_like_others(how, tmp_path):
    found = []
    for compiled in (False, True):
        model = ppo()
        if compiled and how == "policy":
            model.policy = th.compile(model.policy, backend="eager")
        elif compiled:
            how(model.policy)
        model.learn(200, callback(tmp_path / str(compiled), 100))
        found.append([float(row[name]) for row in rows(tmp_path / str(compiled)) for name in MEASURES])
    assert found[1] == pytest.approx(found[0], rel=1e-3) and len(found[0]) == 3 * len(MEASURES)


@pytest.mark.parametrize("kind", ["EveryNTimesteps", "callback_after_eval", "callback_on_new_best"])
def test_inside_another_callback_it_records_at_the_others_events(kind, tmp_path):
    callback = PlasticityCallback(1, tmp_path, n_states=8, n_gradient_states=4)
    evaluation = {"eval_env": make_vec_env("CartPole-v1"), "n_eval_episodes": 1, "eval_freq": 20}
    outer = EveryNTimesteps(20, callback) if kind == "EveryNTimesteps" else EvalCallback(**evaluation, **{kind: callback})
    PPO("MlpPolicy", "CartPole-v1", n_steps=32, batch_size=32, n_epochs=1, seed=0, device="cpu").learn(32, outer)
    assert read_history(tmp_path)["step"].tolist() == [20]
    assert (tmp_path / "plasticity.png").exists()
