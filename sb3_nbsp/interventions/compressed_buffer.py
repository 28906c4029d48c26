"""A replay buffer of images that takes a small part of the memory: every stack of frames is compressed with Zstandard."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer

from sb3_nbsp.extras import needs

LEVEL = 3


@cache
def _zstandard() -> tuple[Callable[..., bytes], Callable[..., bytes]]:
    """Functions that compress and decompress; they cannot be pickled, and belong to no buffer."""
    with needs("atari", "CompressedReplayBuffer"):
        import zstandard

    return zstandard.ZstdCompressor(level=LEVEL).compress, zstandard.ZstdDecompressor().decompress


def pack(images: np.ndarray) -> np.ndarray:
    """
    :param images: of bytes, shape (k, ...)
    :return: compressed, an array of k ``bytes``
    """
    packed, compress = np.empty(len(images), dtype=object), _zstandard()[0]
    # Copied, as what compress() returns keeps the memory of an image that cannot be compressed
    packed[:] = [bytes(memoryview(compress(np.ascontiguousarray(image)))) for image in images]
    return packed


def unpack(packed: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """
    :param packed: compressed images, an array of ``bytes``
    :param shape: of one image
    :return: the images, of bytes: the shape of ``packed``, then that of an image
    """
    images, decompress = np.empty((packed.size, *shape), np.uint8), _zstandard()[1]
    for image, data in zip(images, packed.flat, strict=True):
        image.reshape(-1)[:] = np.frombuffer(decompress(data), np.uint8)
    return images.reshape(*packed.shape, *shape)


class CompressedImages:
    """
    What a replay buffer holds observations in: read and written as an array of shape (rows, environments, ...), but each
    image is compressed. An image that equals the one that was last written for its environment shares its memory, as
    the next observation of a step does with the observation of the step that follows.

    :param n_rows: rows
    :param n_envs: environments
    :param shape: shape of an image
    :param last: for each environment the image that was last written, and how it was compressed; shared by arrays that hold
        the same images
    """

    def __init__(self, n_rows: int, n_envs: int, shape: tuple[int, ...], last: list[Any] | None = None) -> None:
        self.packed = np.full((n_rows, n_envs), None, dtype=object)
        self.image_shape, self._last = shape, [None] * n_envs if last is None else last

    @property
    def nbytes(self) -> int:
        """What all images take as they are, each counted once, with what Python needs for each."""
        different = {id(data): data for data in self.packed.flat if data is not None}
        return self.packed.nbytes + sum(data.__sizeof__() for data in different.values())

    def __getitem__(self, index: Any) -> np.ndarray:
        """Images, by rows and environments; what follows these two in the index has to be all of the image."""
        rows = index[:2] if isinstance(index, tuple) else index
        packed = self.packed[rows]
        return unpack(packed if isinstance(packed, np.ndarray) else np.array(packed, dtype=object), self.image_shape)

    def __setitem__(self, row: int, images: np.ndarray) -> None:
        for env, image in enumerate(images):
            last = self._last[env]
            if last is None or not np.array_equal(last[0], image):
                last = self._last[env] = (image.copy(), pack(image[None])[0])
            self.packed[row, env] = last[1]


class CompressedReplayBuffer(ReplayBuffer):
    """
    SB3's replay buffer with compressed observations, for byte images (``uint8``). Its batches equal SB3's, bit for bit. Pass
    it as ``replay_buffer_class`` to DQN or to an agent of this package, whose memory of earlier tasks then holds compressed
    images, too.

    :param buffer_size: see SB3
    :param observation_space: of bytes
    :param action_space: see SB3
    :param device: see SB3
    :param n_envs: see SB3
    :param optimize_memory_usage: must be False, as next observations take no memory here in any case
    :param handle_timeout_termination: see SB3
    :raises ModuleNotFoundError: if zstandard is missing
    :raises ValueError: if observations are not of bytes, or ``optimize_memory_usage`` is asked for
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        device: th.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        handle_timeout_termination: bool = True,
    ) -> None:
        if not isinstance(observation_space, spaces.Box) or observation_space.dtype != np.uint8:
            raise ValueError(
                "replay_buffer_class: CompressedReplayBuffer holds images of bytes (a Box of uint8), but the observation "
                f"space is {observation_space}"
            )
        if optimize_memory_usage:
            raise ValueError("optimize_memory_usage must be False: CompressedReplayBuffer stores every image once already")
        _zstandard()  # complains if it is missing
        # With one row, as the arrays that SB3 makes are not those that are used
        super().__init__(n_envs, observation_space, action_space, device, n_envs, False, handle_timeout_termination)
        self.buffer_size = n_rows = max(buffer_size // n_envs, 1)
        for name in ("actions", "rewards", "dones", "timeouts"):
            like = getattr(self, name)
            setattr(self, name, np.zeros((n_rows, *like.shape[1:]), like.dtype))
        self._forget()

    def _forget(self) -> None:
        last: list[Any] = [None] * self.n_envs
        shape: Any = self.obs_shape
        for name in ("observations", "next_observations"):
            setattr(self, name, CompressedImages(self.buffer_size, self.n_envs, shape, last))

    def reset(self) -> None:
        """Empty the buffer, and free its memory."""
        super().reset()
        self._forget()
