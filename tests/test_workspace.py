"""Stages: keys follow settings and dependencies, records follow outputs."""

from __future__ import annotations

import pytest

from retrieval_kd.errors import InputError
from retrieval_kd.workspace import Stage, Workspace


def _workspace(folder, ran, first="a", second="b"):
    work = Workspace(folder)

    def stage(name, settings, *needs):
        def run():
            ran.append(name)
            work.path(f"{name}.txt").write_text(name)
            return {"said": name}

        return Stage(name, run, (f"{name}.txt",), settings, needs)

    work.add(stage("one", first))
    work.add(stage("two", second, "one"))
    work.add(stage("three", "c", "two"))
    work.add(stage("aside", "d"))
    return work


def _quiet(stage, done, number):
    return None


def test_each_stage_runs_once(tmp_path):
    ran: list[str] = []
    assert _workspace(tmp_path, ran).execute(_quiet) == ["one", "two", "three", "aside"]
    assert _workspace(tmp_path, ran).execute(_quiet) == []
    assert ran == ["one", "two", "three", "aside"]
    assert _workspace(tmp_path, ran).record("two")["facts"] == {"said": "two"}


def test_a_changed_setting_reruns_what_depends_on_it(tmp_path):
    ran: list[str] = []
    _workspace(tmp_path, ran).execute(_quiet)
    assert _workspace(tmp_path, ran, second="x").execute(_quiet) == ["two", "three"]
    assert _workspace(tmp_path, ran, first="y", second="x").execute(_quiet) == [
        "one", "two", "three",
    ]  # fmt: skip


def test_what_a_killed_run_left_is_removed_and_nothing_else(tmp_path):
    _workspace(tmp_path, []).execute(_quiet)
    [record] = (tmp_path / ".stages").glob("one-*.json")
    left = [tmp_path / ".two.txt.x1.part", record.with_name(f".{record.name}.x2.part")]
    others = [tmp_path / ".own.json.x3.part", tmp_path / ".two.txt", tmp_path / "two.part"]
    for path in left + others:
        path.touch()
    (tmp_path / ".one.txt.x4.part").mkdir()
    (tmp_path / ".one.txt.x4.part" / "file").touch()
    assert _workspace(tmp_path, []).execute(_quiet) == []
    assert not any(path.exists() for path in [*left, tmp_path / ".one.txt.x4.part"])
    assert all(path.exists() for path in others)


def test_a_missing_output_reruns_its_stage(tmp_path):
    ran: list[str] = []
    _workspace(tmp_path, ran).execute(_quiet)
    (tmp_path / "two.txt").unlink()
    work = _workspace(tmp_path, ran)
    assert [stage.name for stage in work.stages if not work.done(stage)] == ["two"]


def test_a_stage_that_was_begun_again_is_no_longer_done(tmp_path):
    """Its outputs may be half those of other settings."""
    ran: list[str] = []
    _workspace(tmp_path, ran).execute(_quiet)
    other = _workspace(tmp_path, ran, second="x")
    broken = other.stages[1]

    def fail():
        raise RuntimeError("killed")

    object.__setattr__(broken, "run", fail)
    with pytest.raises(RuntimeError):
        other.execute(_quiet)
    again = _workspace(tmp_path, ran)
    assert [stage.name for stage in again.todo()] == ["two", "three"]


def test_two_runs_in_one_folder_are_refused(tmp_path):
    from filelock import FileLock

    with FileLock(tmp_path / ".lock"), pytest.raises(InputError, match="another run"):
        _workspace(tmp_path, []).execute(_quiet)


def test_a_failed_stage_is_not_recorded(tmp_path):
    work = Workspace(tmp_path)

    def fail():
        raise RuntimeError("no")

    work.add(Stage("bad", fail, (), None))
    with pytest.raises(RuntimeError):
        work.execute(_quiet)
    assert work.record("bad") == {} and not work.done(work.stages[0])


def test_a_finished_run_leaves_the_folder_free(tmp_path):
    first = _workspace(tmp_path, [])
    first.execute(_quiet)
    assert _workspace(tmp_path, []).execute(_quiet) == []  # while `first` still lives
    assert first.folder.exists()


@pytest.mark.parametrize("text", ["", "[]", '{"key": 1', '{"key": "x"}'])
def test_a_damaged_record_counts_as_none(tmp_path, text):
    ran: list[str] = []
    _workspace(tmp_path, ran).execute(_quiet)
    for path in (tmp_path / ".stages").iterdir():
        path.write_text(text)
    assert len(_workspace(tmp_path, ran).todo()) == 4
    assert _workspace(tmp_path, ran).execute(_quiet) == ["one", "two", "three", "aside"]


def test_a_run_replaces_no_file_of_anything_else(tmp_path):
    (tmp_path / "two.txt").write_text("mine")
    with pytest.raises(InputError, match=r"two\.txt: this file is not of an earlier run"):
        _workspace(tmp_path, []).execute(_quiet)
    assert (tmp_path / "two.txt").read_text() == "mine"


def test_a_changed_output_reruns_its_stage(tmp_path):
    ran: list[str] = []
    _workspace(tmp_path, ran).execute(_quiet)
    (tmp_path / "two.txt").write_text("twp")
    assert _workspace(tmp_path, ran).execute(_quiet) == ["two", "three"]


def test_a_changed_number_in_a_record_reruns_its_stage(tmp_path):
    ran: list[str] = []
    _workspace(tmp_path, ran).execute(_quiet)
    (path,) = (tmp_path / ".stages").glob("aside-*")
    path.write_text(path.read_text().replace('"said": "aside"', '"said": "other"'))
    assert _workspace(tmp_path, ran).execute(_quiet) == ["aside"]
