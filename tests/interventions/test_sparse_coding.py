"""Codes, dictionaries and embeddings of tasks, by hand and against a slow version."""

from __future__ import annotations

import numpy as np
import torch as th

from sb3_nbsp.interventions.sparse_coding import TaskDictionary, embed_text, lasso


def test_codes_of_an_identity_dictionary() -> None:
    """(0.6, -0.8) with a weight of 0.1: soft thresholding. Only the positive entry is on."""
    code = lasso(th.eye(2), th.tensor([0.6, -0.8]), 0.1)
    th.testing.assert_close(code, th.tensor([0.5, -0.7]), rtol=0, atol=1e-7)
    assert (code > 0).tolist() == [True, False]


def test_codes_equal_a_slow_version() -> None:
    generator = th.Generator().manual_seed(1)
    atoms, target = TaskDictionary(16, 10, generator).atoms, embed_text("door-open", 10)
    code = lasso(atoms, target, 0.01).double()
    slow, rest = [0.0] * 16, target.double().clone()
    for _ in range(2000):  # coordinate descent
        for j, atom in enumerate(atoms.double()):
            rest += slow[j] * atom
            correlation = float(atom @ rest)
            slow[j] = float(np.sign(correlation) * max(abs(correlation) - 0.01, 0) / float(atom @ atom))
            rest -= slow[j] * atom
    th.testing.assert_close(code, th.tensor(slow).double(), rtol=1e-4, atol=1e-5)
    assert th.equal(code > 0, th.tensor(slow) > 0)
    assert lasso(atoms, target, 100.0).tolist() == [0.0] * 16


def test_codes_of_atoms_that_are_nearly_parallel() -> None:
    """Momentum that never starts again, or starts again in the wrong place, is not there after as many iterations."""
    generator = th.Generator().manual_seed(0)
    atoms = (th.randn(1, 16, generator=generator) + 0.3 * th.randn(20, 16, generator=generator)).double()
    atoms /= atoms.norm(dim=1, keepdim=True)
    target = embed_text("door-open", 16).double()
    code = lasso(atoms, target, 1e-3)
    slope = atoms @ (target - code @ atoms)
    th.testing.assert_close(slope[code != 0], 1e-3 * code[code != 0].sign(), rtol=0, atol=1e-8)
    assert slope.abs().max() < 1e-3 + 1e-8


def test_a_dictionary_learns() -> None:
    """By hand: d_0 is (0.986393, -0.164399) after its projection, and d_1 is computed with it."""
    dictionary = TaskDictionary(2, 2, th.Generator())
    dictionary.atoms = th.eye(2)
    dictionary.learn(th.tensor([0.5, -0.7]), th.tensor([0.6, -0.8]), th.Generator())
    th.testing.assert_close(dictionary.of_codes, th.tensor([[0.25, -0.35], [-0.35, 0.49]]))
    th.testing.assert_close(dictionary.of_vectors, th.tensor([[0.3, -0.42], [-0.4, 0.56]]))
    expected = th.tensor([[0.986393, -0.164399], [-0.147172, 0.989110]])
    th.testing.assert_close(dictionary.atoms, expected, rtol=0, atol=2e-6)
    # An atom that no code uses begins anew, near the vector
    dictionary.atoms = th.eye(2)
    dictionary.of_codes[:], dictionary.of_vectors[:] = 0, 0
    dictionary.learn(th.tensor([0.5, 0.0]), th.tensor([0.6, 0.6]), th.Generator())
    th.testing.assert_close(dictionary.atoms[1], th.tensor([0.6, 0.6]))


def test_embeddings() -> None:
    names = ["window-open", "window-close", "button-press-topdown"]
    vectors = th.stack([embed_text(name) for name in names])
    cosines = vectors @ vectors.T
    th.testing.assert_close(cosines.diagonal(), th.ones(3))
    assert cosines[0, 1] > 0.4 and cosines[0, 2].abs() < 0.25 and cosines[1, 2].abs() < 0.25
    assert th.equal(embed_text("Window, OPEN!"), vectors[0])
    for odd in ("", "?!", "窓を開ける", "7"):
        assert embed_text(odd).norm() > 0.5
