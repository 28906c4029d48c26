#!/usr/bin/env bash
# Meta-World 3.1.1: the environments of Meta-World/ML1-train hold the goals of the test split.
#
# Documented: ML1 measures whether an agent adapts to goals that it was not trained on. It has 50 goals to train on and
# 50 others to test on (`metaworld.ML1(...).train_tasks` and `.test_tasks`), and Gymnasium has an id for each half.
# Seen: `gym.make_vec("Meta-World/ML1-train", ...)` and `gym.make_vec("Meta-World/ML1-test", ...)` hold the same 50 goals,
# those of the test split; none of the training goals is in either. An agent that is trained and tested by these two ids is
# tested on what it was trained on. (The ids are registered in a loop, by functions that read the loop's variable when
# they are called. ML10-train and ML10-test, whose functions keep a copy, are right.)
#
# Takes a minute or two and downloads some 60 MB. Exit status 0: this is still so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet metaworld==3.1.1 mujoco==3.3.0 gymnasium==1.4.0 numpy==2.2.6 packaging

"$folder/venv/bin/python" - <<'EOF'
import pickle
import warnings
from importlib.metadata import version

import gymnasium as gym
import metaworld

warnings.filterwarnings("ignore")


def goals(tasks):
    return {tuple(pickle.loads(task.data)["rand_vec"].round(6)) for task in tasks}


def goals_of_id(env_id):
    envs = gym.make_vec(env_id, env_name="reach-v3", vector_strategy="sync", seed=1, meta_batch_size=10)
    found = set()
    for env in envs.envs:
        while not hasattr(env, "tasks"):
            env = env.env
        found |= goals(env.tasks)
    return found


benchmark = metaworld.ML1("reach-v3", seed=1)
train, test = goals(benchmark.train_tasks), goals(benchmark.test_tasks)
of_train_id, of_test_id = goals_of_id("Meta-World/ML1-train"), goals_of_id("Meta-World/ML1-test")

print(f"metaworld {version('metaworld')}, gymnasium {version('gymnasium')}")
print(f"training goals: {len(train)}, test goals: {len(test)}, in both: {len(train & test)}")
print(f"Meta-World/ML1-train: {len(of_train_id & train)} training goals, {len(of_train_id & test)} test goals")
print(f"Meta-World/ML1-test:  {len(of_test_id & train)} training goals, {len(of_test_id & test)} test goals")
assert not train & test
assert of_train_id == of_test_id == test
print("As described: ML1-train holds the test goals, and only those.")
EOF
