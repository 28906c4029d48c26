"""Sparse codes of tasks: a vector for a task's name, and a dictionary that describes such vectors by a few of its atoms."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence

import torch as th

_UNUSED = 1e-6  # an atom whose codes' squares add up to less is drawn again


def embed_text(text: str, size: int = 384) -> th.Tensor:
    """
    A bag of the words and of the letter trigrams of a text, hashed: each is 1 or -1 at one of ``size`` places. Texts with
    parts in common ("window-open", "window-close") are similar, others nearly orthogonal.

    :param text: a name or a description
    :param size: length of the vector
    :return: of unit norm, shape (size,)
    """
    words = re.findall(r"[^\W_]+", text.lower()) or [text or "unnamed"]
    trigrams = [f"#{word}#"[i : i + 3] for word in words for i in range(len(word))]
    vector = th.zeros(size)
    for part in [*words, *trigrams]:
        number = int.from_bytes(hashlib.sha256(part.encode()).digest()[:8], "big")
        vector[number // 2 % size] += 1 if number % 2 else -1
    return vector / vector.norm().clamp(min=1)


def lasso(atoms: th.Tensor, target: th.Tensor, weight: float, iterations: int = 5000) -> th.Tensor:
    r"""
    The sparse code of a vector e,

    .. math:: \alpha = \arg\min_\alpha \tfrac12 \Big\| e - \sum_j \alpha_j d_j \Big\|^2 + \lambda \|\alpha\|_1

    (Yang et al., 2023), by accelerated proximal gradient steps (Beck & Teboulle, 2009) whose momentum starts again
    when it points uphill (O'Donoghue & Candès, 2015), in double precision.

    :param atoms: :math:`d_j`, shape (atoms, size)
    :param target: e, shape (size,)
    :param weight: λ
    :param iterations: number of steps at most: with a dictionary that has learned, thousands are needed
    :return: α, shape (atoms,)
    """
    gram, correlations = (atoms.double() @ other.double() for other in (atoms.T, target))
    step = 1 / th.linalg.eigvalsh(gram)[-1].clamp(min=1e-12)
    code = ahead = th.zeros_like(correlations)
    momentum = 1.0
    for _ in range(iterations):
        new = th.nn.functional.softshrink(ahead - step * (gram @ ahead - correlations), float(step * weight))
        if (ahead - new) @ (new - code) > 0:
            momentum = 1.0
        following = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        ahead = new + (momentum - 1) / following * (new - code)
        change, code, momentum = (new - code).abs().max(), new, following
        if change < 1e-12:
            break
    return code.to(atoms.dtype)


class TaskDictionary:
    """
    A dictionary that learns from one task after another.

    :param n_atoms: number of atoms
    :param size: length of the vectors
    :param generator: draws the atoms: Gaussian ones, brought down to a norm of 1
    """

    def __init__(self, n_atoms: int, size: int, generator: th.Generator) -> None:
        self.atoms = th.randn(n_atoms, size, generator=generator)
        self.atoms /= self.atoms.norm(dim=1, keepdim=True).clamp(min=1)
        self.of_codes = th.zeros(n_atoms, n_atoms)
        self.of_vectors = th.zeros(size, n_atoms)

    def learn(self, code: th.Tensor, vector: th.Tensor, generator: th.Generator) -> None:
        r"""
        Learn from a task (Mairal et al., Online dictionary learning for sparse coding, 2009, algorithm 2). With :math:`A
        \leftarrow A + \alpha \alpha^T` and :math:`B \leftarrow B + e \alpha^T`, once over the atoms in order,

        .. math::
            d_j \leftarrow d_j + \frac{B_{:j} - \sum_i A_{ji} d_i}{A_{jj}}, \quad
            d_j \leftarrow \frac{d_j}{\max(1, \|d_j\|)}

        An atom that hardly any code uses (:math:`A_{jj} \le 10^{-6}`) becomes e with noise of the standard deviation of e's
        entries.

        :param code: α, shape (atoms,)
        :param vector: e, shape (size,)
        :param generator: draws the noise
        """
        self.of_codes += th.outer(code, code)
        self.of_vectors += th.outer(vector, code)
        for j, scale in enumerate(self.of_codes.diagonal().tolist()):
            if scale > _UNUSED:
                self.atoms[j] += (self.of_vectors[:, j] - self.of_codes[j] @ self.atoms) / scale
            else:
                noise = th.randn(len(vector), generator=generator)
                self.atoms[j] = vector + vector.std(correction=0) * noise
            self.atoms[j] /= self.atoms[j].norm().clamp(min=1)


def check_embeddings(task_embeddings: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """
    :param task_embeddings: by task, a vector
    :return: the same, as lists of numbers
    :raises ValueError: if they are not of the same length, or one is zero or not finite
    """
    what = "task_embeddings must be a dictionary of task names and vectors of the same length that are not zero"
    try:
        vectors = {str(task): [float(number) for number in vector] for task, vector in task_embeddings.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{what}, not {task_embeddings!r}") from error
    lengths = {len(vector) for vector in vectors.values()}
    for task, vector in vectors.items():
        if len(lengths) > 1 or not all(map(math.isfinite, vector)) or not any(vector):
            raise ValueError(f"{what}; that of {task!r} is {vector} (lengths: {sorted(lengths)})")
    if not vectors:
        raise ValueError(f"{what}, and hold at least one")
    return vectors
