"""A file is written whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from saved_agents import nbsp

from sb3_nbsp.files import atomic_path, atomic_write
from sb3_nbsp.tasks import latest_checkpoint
from sb3_nbsp.tasks.checkpoint import save_checkpoint


@pytest.mark.parametrize("what", ["model.zip", "buffer.pkl", "text", "path"])
def test_an_error_while_writing_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    agent = nbsp()
    agent.learn(75)

    def write() -> None:
        if what == "model.zip":
            agent.save(tmp_path / what)
        elif what == "buffer.pkl":
            agent.save_replay_buffer(tmp_path / what)
        elif what == "text":
            atomic_write(tmp_path / what, "old" if not (tmp_path / what).exists() else "new")
        else:
            with atomic_path(tmp_path / what) as path:
                path.write_text("half")
                if (tmp_path / what).exists():
                    raise OSError("no space left on device")

    write()
    old = (tmp_path / what).read_bytes()
    assert old

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError("no space left on device")

    # In the middle: the zip has begun, the pickle has its first bytes
    monkeypatch.setattr("stable_baselines3.common.save_util.th.save", fail)
    monkeypatch.setattr(
        "stable_baselines3.common.save_util.pickle.dump", lambda _obj, file, **_: (file.write(b"half"), fail())
    )
    monkeypatch.setattr(
        "pathlib.Path.write_text", lambda self, text, **_: self.write_bytes(text.encode()[:1]) if what == "path" else fail()
    )
    with pytest.raises(OSError, match="no space"):
        write()
    assert (tmp_path / what).read_bytes() == old
    assert [path.name for path in tmp_path.iterdir()] == [what]
    monkeypatch.undo()
    if what in ("model.zip", "buffer.pkl"):
        write()
        assert "intervention_memory" not in vars(agent.replay_buffer)


def test_new_folders_are_made(tmp_path: Path) -> None:
    agent = nbsp()
    agent.save(tmp_path / "a" / "b" / "model")
    agent.save_replay_buffer(str(tmp_path / "c" / "buffer"))
    assert (tmp_path / "a" / "b" / "model.zip").is_file() and (tmp_path / "c" / "buffer.pkl").is_file()


def test_a_link_stays_a_link_and_the_file_that_it_names_is_written(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "model.zip").symlink_to(tmp_path / "disk" / "model-1.zip")  # of which there is nothing yet
    agent = nbsp()
    for _ in range(2):
        agent.save(tmp_path / "model")
        assert (tmp_path / "model.zip").is_symlink()
        assert [path.name for path in (tmp_path / "disk").iterdir()] == ["model-1.zip"]
    type(agent).load(tmp_path / "model")


def test_a_full_disk_leaves_the_last_checkpoint_and_no_half_of_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = nbsp()
    agent.learn(30)
    first = save_checkpoint(agent, tmp_path)
    agent.learn(10, reset_num_timesteps=False)

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("stable_baselines3.common.save_util.pickle.dump", fail)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(agent, tmp_path)
    assert list(tmp_path.iterdir()) == [first] == [latest_checkpoint(tmp_path)]
