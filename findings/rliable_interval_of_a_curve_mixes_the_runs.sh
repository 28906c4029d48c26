#!/usr/bin/env bash
# rliable 1.2.0: confidence intervals of whole learning curves are those of curves that no run had.
#
# Documented: `get_interval_estimates` resamples the runs, and takes matrices of runs x tasks or, with evaluations at several points of
# the training, of runs x tasks x points. Its function may compute any aggregate of them. `random_state` makes it reproducible.
# Seen: with three dimensions, another run is drawn at each point of the training, so that a resampled curve jumps from run to
# run. An interval for each point by itself, as in rliable's example, does not suffer. One for anything that joins points does.
# That of the mean over 50 points (the area under the curve) is seven times too narrow, and holds the truth 24 times in 100 instead
# of 97; that of forgetting (best minus last) lies beside its own estimate: 0.04, from 0.19 to 0.30. Both are right if the function
# is applied to each run's curve first, and the matrix of runs x tasks is passed. `random_state` has no effect; np.random.seed() has.
#
# Takes a minute or two and downloads some 80 MB. Exit status 0: this is still so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet arch==7.2.0 numpy==2.2.6 scipy==1.15.3 pandas==2.3.3 statsmodels==0.14.5 absl-py==2.3.1
# --no-deps: what is left out is for its figures
"$folder/venv/bin/pip" install --quiet --no-deps rliable==1.2.0

PYTHONWARNINGS=ignore OMP_NUM_THREADS=1 "$folder/venv/bin/python" - <<'EOF'
from importlib.metadata import version

import numpy as np
from rliable import library, metrics

print(*(f"{name} {version(name)}" for name in ("rliable", "arch", "numpy", "scipy")), sep=", ")
N_RUNS, N_TASKS, N_POINTS, TRUTH = 10, 3, 50, 0.5


def curves(generator):
    """Flat curves: each run of a task has a level of its own around 0.5 (good seeds and bad seeds), with a little noise."""
    levels = generator.normal(TRUTH, 0.2, (N_RUNS, N_TASKS, 1))
    return levels + generator.normal(0, 0.02, (N_RUNS, N_TASKS, N_POINTS))


def interval(scores, function, n=2000, **options):
    point, both = library.get_interval_estimates({"agent": scores}, function, reps=n, **options)
    return float(point["agent"][0]), *(float(x) for x in both["agent"].ravel())


def area(scores):
    return scores.mean(axis=-1)


def forgetting(scores):
    return scores.max(axis=-1) - scores[..., -1]


def mean(scores):
    return np.array([metrics.aggregate_mean(scores)])


np.random.seed(0)  # of the bootstrap
scores = curves(np.random.default_rng(0))
found = {}
for name, measure in {"mean of the curve": area, "best minus last": forgetting}.items():
    found[name, "curves"] = interval(scores, lambda resampled: mean(measure(resampled)))
    found[name, "matrix"] = interval(measure(scores), mean)
    for given in ("curves", "matrix"):
        point, low, high = found[name, given]
        print(f"{name}, from the {given}: {point:.3f}, interval {low:.3f} to {high:.3f} (width {high - low:.3f})")
    assert np.isclose(found[name, "curves"][0], found[name, "matrix"][0])  # the same estimate of the same scores
    assert found[name, "matrix"][1] < found[name, "matrix"][0] < found[name, "matrix"][2]

(_, low, high), (_, right_low, right_high) = (found["mean of the curve", given] for given in ("curves", "matrix"))
error = np.sqrt((area(scores).var(axis=0) / N_RUNS).mean() / N_TASKS)
print(f"  1.96 standard errors of the mean to each side: width {2 * 1.96 * error:.3f}")
assert abs((right_high - right_low) / (2 * 1.96 * error) - 1) < 0.1 and 5 < (right_high - right_low) / (high - low) < 9
point, low, high = found["best minus last", "curves"]
assert point < low - 0.1

generator, covered = np.random.default_rng(1), np.zeros(2, int)
for _ in range(100):
    scores = curves(generator)
    for i, (_, low, high) in enumerate((interval(scores, lambda x: mean(area(x)), 300), interval(area(scores), mean, 300))):
        covered[i] += low < TRUTH < high
print(f"100 experiments: the interval of 95 % from the curves holds the truth {covered[0]} times, that from the matrix {covered[1]} times")
assert covered[0] < 40 and covered[1] > 80

again = [interval(area(scores), mean, 300, random_state=np.random.RandomState(1)) for _ in range(2)]
assert again[0] != again[1]
seeded = []
for _ in range(2):
    np.random.seed(1)
    seeded.append(interval(area(scores), mean, 300))
assert seeded[0] == seeded[1]
print("the same random_state twice gives two intervals; np.random.seed() makes them equal")
print("As described: the interval is that of curves that are mixed from all runs.")
EOF
