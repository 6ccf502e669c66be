"""What git says of a command's folder and of this code, whatever git does."""

import subprocess
from pathlib import Path

import pytest

from harness.running import origin
from harness.running.origin import Commit, ask_origin


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with one commit, as the working folder, and a way to call git there."""

    def git(*words):
        named = ("-c", "user.name=me", "-c", "user.email=me@example.org")
        return subprocess.run(["git", *named, *words], cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    git("init", "-q")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/halfway.py").write_text("one\n")
    git("add", ".")
    git("commit", "-qm", "first")
    monkeypatch.chdir(tmp_path)
    return git


def folder(results="results"):
    return ask_origin("a command", Path(results)).folder


def test_a_tree_is_clean_but_for_results_and_what_python_writes(repository, tmp_path):
    commit = repository("rev-parse", "HEAD").strip()
    for path in ("mine/__pycache__/halfway.pyc", "out/results/store.json"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).touch()
    assert folder("out/results") == Commit(commit, clean=True)
    assert folder() == Commit(commit, clean=False)  # then out/ is a new file


def test_an_edited_or_a_new_file_makes_it_unclean_and_git_is_asked_from_any_folder(repository, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "mine")
    (tmp_path / "new.py").touch()
    assert folder().clean is False
    (tmp_path / "new.py").unlink()
    assert folder().clean is True
    Path("halfway.py").write_text("two\n")
    found = ask_origin("a command", Path("results"))
    assert found.folder.clean is False
    assert str(found.folder) == f"{found.folder.commit[:12]}, tree not clean"
    assert found.as_record()["git"]["folder"]["commit"] == found.folder.commit


def test_where_git_says_nothing_there_is_a_note(repository, tmp_path, monkeypatch):
    elsewhere = tmp_path.parent
    with monkeypatch.context() as patch:
        patch.chdir(elsewhere)
        patch.setenv("GIT_CEILING_DIRECTORIES", str(elsewhere.parent))
        assert folder() == Commit(note="no git repository")
    with monkeypatch.context() as patch:
        patch.setattr(origin, "GIT_SECONDS", 0)
        assert folder() == Commit(note="git did not answer within 0 s")
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "/nonexistent")
        assert folder() == Commit(note="git is not installed")


def test_code_that_is_installed_in_anothers_repository_is_no_checkout(repository, tmp_path, monkeypatch):
    monkeypatch.setattr(origin, "HOME", tmp_path)
    assert ask_origin("a command", Path("results")).harness == Commit(note="no git checkout")
    (tmp_path / "harness").mkdir()
    (tmp_path / "harness/__init__.py").touch()
    repository("add", "harness")
    assert ask_origin("a command", Path("results")).harness == Commit(repository("rev-parse", "HEAD").strip(), False)
