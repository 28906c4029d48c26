"""push_to_hub and load_from_hub, up to the network."""

import shutil
import zipfile
from pathlib import Path

import huggingface_hub
import pytest
import yaml
from huggingface_hub.errors import RemoteEntryNotFoundError
from zoo_commands import ENV_ID

from sb3_nbsp import NBSPSAC

# Only because several commands run in one process here
pytestmark = pytest.mark.filterwarnings("ignore:'rl_zoo3:RuntimeWarning")
NAME = f"nbsp_sac-{ENV_ID}"
RUN = ["--algo", "nbsp_sac", "--env", ENV_ID]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A hub in a folder: what is uploaded is copied there, what is downloaded comes from there."""
    root = tmp_path / "the-hub"

    def create_repo(self, repo_id, **kwargs):
        (root / repo_id).mkdir(parents=True)
        return f"https://huggingface.co/{repo_id}"

    def snapshot_download(self, repo_id, local_dir):
        shutil.copytree(root / repo_id, local_dir)

    def upload_folder(self, repo_id, folder_path, commit_message):
        shutil.copytree(folder_path, root / repo_id, dirs_exist_ok=True)

    def download(repo_id, filename, **kwargs):
        path = root / repo_id / filename
        if not path.exists():
            response = missing_response()
            raise RemoteEntryNotFoundError(f"404: {filename}", response=response)
        return str(path)

    for function in (create_repo, snapshot_download, upload_folder):
        monkeypatch.setattr(huggingface_hub.HfApi, function.__name__, function)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return root


def missing_response():
    """What the hub answers, of the class that huggingface_hub itself uses."""
    http = huggingface_hub.errors.Response.__module__.split(".")[0]
    library = __import__(http)
    return library.Response(404, request=library.Request("GET", "https://huggingface.co"))


@pytest.fixture
def pushed(trained, hub, command) -> Path:
    command("push_to_hub", *RUN, "-f", str(trained.logs), "-orga", "me", "--no-render")
    return hub / "me" / NAME


def test_push_to_hub_uploads_the_whole_run(pushed, trained):
    found = {path.name for path in pushed.iterdir()}
    files = {"README.md", "args.yml", "config.yml", "env_kwargs.yml", "results.json", "train_eval_metrics.zip", f"{NAME}.zip"}
    assert files <= found
    assert NBSPSAC.load(pushed / f"{NAME}.zip").num_timesteps == 800
    config = dict(yaml.unsafe_load((pushed / "config.yml").read_text()))
    assert config["memory_size"] == 150
    with zipfile.ZipFile(pushed / "train_eval_metrics.zip") as archive:
        assert {"success_matrix.csv", "training.csv", "evaluations.npz"} <= set(archive.namelist())
    # Evaluated, like enjoy, on all tasks
    assert yaml.safe_load((pushed / "env_kwargs.yml").read_text())["rotate"] is True


def test_the_model_card_is_one_that_the_hub_takes(pushed):
    card = huggingface_hub.ModelCard.load(pushed / "README.md")  # metadata without Python objects
    metadata = card.data.to_dict()
    assert metadata["library_name"] == "stable-baselines3"
    assert ENV_ID in metadata["tags"]
    (model,) = metadata["model-index"]
    assert model["name"] == "NBSPSAC"
    (result,) = model["results"]
    assert result["dataset"]["name"] == ENV_ID
    assert [metric["name"] for metric in result["metrics"]] == ["mean_reward"]
    assert "!!python" not in card.content


def test_the_model_card_tells_commands_that_work(pushed):
    text = (pushed / "README.md").read_text()
    assert f"# **NBSPSAC** Agent playing **{ENV_ID}**" in text
    assert "pip install 'sb3_nbsp[zoo]'" in text
    assert f"sb3-nbsp load_from_hub --algo nbsp_sac --env {ENV_ID} -orga me -f logs/" in text
    assert f"sb3-nbsp enjoy --algo nbsp_sac --env {ENV_ID}" in text
    # rl-zoo3's own commands do not know the algorithm
    assert "-m rl_zoo3" not in text


def test_a_downloaded_agent_can_be_enjoyed(pushed, command, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("TRUST_REMOTE_CODE", "True")
    command("load_from_hub", *RUN, "-orga", "me", "-f", "downloaded")
    assert "No normalization file" in capsys.readouterr().out
    folder = Path("downloaded") / "nbsp_sac" / f"{ENV_ID}_1"
    assert (folder / f"{ENV_ID}.zip").exists() and (folder / "success_matrix.csv").exists()
    command("enjoy", *RUN, "-f", "downloaded", "--no-render", "-n", "100")
    assert "2 Episodes" in capsys.readouterr().out


def test_enjoy_downloads_what_is_not_there(pushed, hub, command, monkeypatch, capsys):
    """Of the organization sb3, as the zoo does with its default folder."""
    monkeypatch.setenv("TRUST_REMOTE_CODE", "True")
    (hub / "me").rename(hub / "sb3")
    command("enjoy", *RUN, "--no-render", "-n", "50")
    output = capsys.readouterr().out
    assert "trying to download it" in output and "1 Episodes" in output


def test_a_model_that_is_not_there_is_an_error(hub, command, monkeypatch):
    monkeypatch.setenv("TRUST_REMOTE_CODE", "True")
    with pytest.raises(OSError, match=f"404: {NAME}.zip"):
        command("load_from_hub", *RUN, "-orga", "me", "-f", "downloaded")


def test_the_users_consent_is_asked_for(pushed, command, monkeypatch):
    monkeypatch.delenv("TRUST_REMOTE_CODE", raising=False)
    with pytest.raises(ValueError, match="TRUST_REMOTE_CODE"):
        command("load_from_hub", *RUN, "-orga", "me", "-f", "downloaded")
