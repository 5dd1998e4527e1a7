import urllib.parse

import pytest

from avavla_ray.errors import InputError
from avavla_ray.policy.checkpoint import load_checkpoint, save_checkpoint
from avavla_ray.tracked_run import client_of
from avavla_ray.tracking import check_store, children_of, compare_link, find_runs, register_checkpoint, track
from tests.support.policies import some_statistics, stirred_policy, tiny


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


def test_a_run_keeps_what_it_was_told(uri, tmp_path):
    (tmp_path / "note.txt").write_text("hello")
    with track(
        "first", kind="evaluation", uri=uri, params={"suite": "s"}, tags={"commit": "abc", "nested": {"a": 1}}
    ) as run:
        run.log_metrics({"success_rate": 0.5, "mean_latent_steps": 2.5}, step=3)
        run.log_file(tmp_path / "note.txt")
    (found,) = find_runs(uri=uri, kind="evaluation", filters="params.suite = 's'")
    assert found.info.status == "FINISHED"
    assert found.data.metrics == {"success_rate": 0.5, "mean_latent_steps": 2.5}
    assert found.data.tags["nested"] == '{"a": 1}'
    assert not find_runs(uri=uri, kind="bc")


def test_the_same_key_continues_the_run_only_when_resumed(uri):
    ids = []
    for value, resume in ((1.0, False), (2.0, True), (3.0, False), (4.0, True)):
        with track("keyed", kind="ppo", uri=uri, run_key="k1", resume=resume, params={"a": value}) as run:
            run.log_metrics({"loss": value}, step=int(value))
            ids.append(run.run_id)
    assert ids[0] == ids[1] != ids[2] == ids[3]


def test_a_failed_run_says_so(uri):
    with pytest.raises(RuntimeError, match="boom"), track("broken", kind="failing", uri=uri):
        raise RuntimeError("boom")
    assert find_runs(uri=uri, kind="failing")[0].info.status == "FAILED"


def test_not_a_number_is_refused(uri):
    with track("nan", kind="nan", uri=uri) as run, pytest.raises(InputError, match="loss is nan"):
        run.log_metrics({"loss": float("nan")})


@pytest.mark.parametrize("uri", ["runs/here", "file:///tmp/x"])
def test_plain_folders_are_refused(uri):
    with pytest.raises(InputError, match="sqlite:///PATH.db"):
        check_store(uri)


def test_an_unwritable_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="not writable"):
        check_store(f"sqlite:///{tmp_path}/file/mlflow.db")


def test_the_compare_link_quotes_both_lists():
    query = compare_link(["a", "b"], "4").split("?")[1]
    assert urllib.parse.parse_qs(query) == {"runs": ['["a","b"]'], "experiments": ['["4"]']}


def test_a_trial_is_shown_below_its_sweep(uri):
    with track("sweep", kind="sweep", uri=uri) as sweep:
        for value in (0.3, 0.5):
            with track(f"trial {value}", kind="evaluation", uri=uri, parent=sweep.run_id) as trial:
                trial.log_metrics({"success_rate": value})
    with track("another", kind="evaluation", uri=uri):
        pass
    children = children_of(sweep.run_id, uri=uri)
    assert [child.data.metrics["success_rate"] for child in children] == [0.3, 0.5]
    assert {child.data.tags["mlflow.parentRunId"] for child in children} == {sweep.run_id}


def test_a_registered_checkpoint_can_be_loaded_by_its_name(uri, tmp_path):
    import mlflow

    folder = tmp_path / "checkpoint"
    save_checkpoint(folder, stirred_policy(tiny()), some_statistics(), stage="bc", provenance={"seed": 7})
    with track("training", kind="bc", uri=uri) as run:
        for _ in range(2):  # once more changes nothing
            register_checkpoint(uri, run, folder, "policy")
    register_checkpoint(uri, run.run_id, folder, "policy")
    (version,) = client_of(uri).search_model_versions("name = 'policy'")
    checkpoint = load_checkpoint(folder)
    assert (version.run_id, version.tags["checkpoint"]) == (run.run_id, checkpoint.digest)
    mlflow.set_tracking_uri(uri)
    copy = mlflow.artifacts.download_artifacts(artifact_uri=f"models:/policy/{version.version}")
    assert load_checkpoint(copy).digest == checkpoint.digest


def test_a_checkpoint_is_registered_through_the_file_of_what_waits_too(uri, tmp_path):
    folder = tmp_path / "checkpoint"
    save_checkpoint(folder, stirred_policy(tiny()), some_statistics(), stage="ppo", provenance={})
    with track("training", kind="ppo", uri=uri, output=tmp_path / "run") as run:
        run.register_checkpoint(folder, "waiting-policy")
    assert run.waiting == 0
    (version,) = client_of(uri).search_model_versions("name = 'waiting-policy'")
    assert (version.run_id, version.tags["stage"]) == (run.run_id, "ppo")


def test_a_checkpoint_that_has_changed_while_it_waited_is_left_out_and_the_rest_is_sent(uri, tmp_path, capsys):
    folder = tmp_path / "checkpoint"
    save_checkpoint(folder, stirred_policy(tiny()), some_statistics(), stage="ppo", provenance={})
    with track("training", kind="ppo", uri=uri) as run:
        run.perform([
            {"op": "checkpoint", "path": str(folder), "name": "changed", "digest": "of another", "time": 0},
            {"op": "checkpoint", "path": str(tmp_path / "gone"), "name": "gone", "digest": "x", "time": 0},
            {"op": "tags", "values": {"after": "it"}, "time": 0},
        ])  # fmt: skip
    assert client_of(uri).get_run(run.run_id).data.tags["after"] == "it"
    assert not client_of(uri).search_model_versions("name = 'changed'")
    said = capsys.readouterr().out
    assert "changed is not registered" in said
    assert "gone is not registered" in said


def test_what_is_no_checkpoint_is_not_registered(uri, tmp_path):
    with track("training", kind="bc", uri=uri) as run:
        with pytest.raises(InputError, match="there is no checkpoint"):
            register_checkpoint(uri, run, tmp_path / "nothing", "policy")
        with pytest.raises(InputError, match="registered model 'a/b'"):
            register_checkpoint(uri, run, tmp_path, "a/b")
