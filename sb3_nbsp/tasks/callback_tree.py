"""Where a callback stands among the callbacks of a call of ``learn()``."""

from __future__ import annotations

from collections.abc import Iterator

from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    EvalCallback,
    EventCallback,
    ProgressBarCallback,
)


def check_sees_every_step(callback: BaseCallback, root: BaseCallback | None = None) -> None:
    """
    :param callback: needs to be called at every step
    :param root: the callback of ``learn()``, where it is known
    :raises ValueError: if it is inside a callback that calls it now and then
    """
    outer: BaseCallback | None = callback.parent
    while outer is not None:
        _refuse_inside(callback, outer)
        outer = outer.parent
    for each in descendants(root) if root is not None else []:
        if isinstance(each, EventCallback) and any(inner is callback for inner in descendants(each) if inner is not each):
            _refuse_inside(callback, each)


def _refuse_inside(callback: BaseCallback, outer: BaseCallback) -> None:
    if isinstance(outer, EventCallback):
        raise ValueError(
            f"{type(callback).__name__} must see every step and cannot be inside {type(outer).__name__}: give it to learn() "
            "itself, alone or in a list"
        )


def descendants(callback: BaseCallback) -> Iterator[BaseCallback]:
    """
    :param callback: any
    :return: the callback and those inside it, as far as SB3's own callbacks have some
    """
    yield callback
    inside: list[BaseCallback | None] = []
    if isinstance(callback, CallbackList):
        inside += callback.callbacks
    if isinstance(callback, EventCallback):
        inside.append(callback.callback)
    if isinstance(callback, EvalCallback):
        inside.append(callback.callback_on_new_best)
    for each in inside:
        if each is not None:
            yield from descendants(each)


def describe_progress(root: BaseCallback | None, text: str) -> None:
    """
    Write something in front of the progress bar.

    :param root: the callback of ``learn()``
    :param text: what the agent is doing
    """
    for each in _progress_bars(root):
        each.pbar.set_description(text)


def announce_end(root: BaseCallback | None, n_steps: int) -> None:
    """
    Say that a task sequence is over, and end the progress bar, which knows only how many steps there could have been.

    :param root: the callback of ``learn()``
    :param n_steps: environment steps of the agent so far
    """
    for each in _progress_bars(root):
        each.pbar.total = each.pbar.n
        if hasattr(each.pbar, "_prog"):  # of rich, which has a total of its own
            each.pbar._prog.update(each.pbar._task_id, total=each.pbar.n)
    print(f"The task sequence is over: training ends at step {n_steps}")


def _progress_bars(root: BaseCallback | None) -> Iterator[ProgressBarCallback]:
    if root is not None:
        yield from (each for each in descendants(root) if isinstance(each, ProgressBarCallback))
