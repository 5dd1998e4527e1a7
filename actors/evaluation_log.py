"""The MLflow runs of an evaluation, one an exit setting, logged when all of its files are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avavla_ray.errors import InputError
from avavla_ray.evaluation.exit_setting import ExitSetting
from avavla_ray.tracking import goes_on_in, noted_run, track


@dataclass(frozen=True)
class Written:
    """What one exit setting has come to.

    Attributes:
        result: as its file, at `path`, holds it. metrics: numbers of the run; None is left out.
        videos: files that the run gets too.
    """

    setting: ExitSetting
    result: dict[str, Any]
    metrics: Mapping[str, Any]
    path: Path
    videos: Sequence[Path] = ()


@dataclass(frozen=True)
class EvaluationLog:
    """The runs of one suite's evaluation.

    Attributes:
        output: folder of the results; what the store does not take waits below it, in `mlflow/`, until it is sent by
            an evaluation that is resumed. run_key: identity of the evaluation. label, checkpoint: its name and digest.
        params: of all runs.
    """

    output: Path
    uri: str
    kind: str
    run_key: str
    resume: bool
    label: str
    checkpoint: str
    params: Mapping[str, Any]

    def check(self, exits: Sequence[ExitSetting]) -> None:
        """Refuse another store than the one that a resumed evaluation has been logged to, before anything is played.

        Raises:
            InputError: naming that store.
        """
        for setting in exits if self.resume else ():
            noted = noted_run(self._folder(setting))
            if noted is not None:
                goes_on_in(noted, self.uri, f"{self.output} was logged")

    def log(self, written: Sequence[Written]) -> str | None:
        """Log them all, in order, as long as their runs can be opened; why that is not all, None where it is."""
        for done, each in enumerate(written):
            try:
                self._log(each)
            except InputError as error:
                return (
                    f"all results are in {self.output}, but MLflow has {done} of {len(written)} runs: {error}; "
                    "log the others with --resume when it answers, which plays nothing again"
                )
        return None

    def _folder(self, setting: ExitSetting) -> Path:
        return self.output / "mlflow" / setting.label

    def _log(self, written: Written) -> None:
        setting = written.setting
        with track(
            f"{self.label} {setting.title}", kind=self.kind, uri=self.uri, resume=self.resume,
            run_key=f"{self.run_key}/{setting.label}", output=self._folder(setting),
            # The scatter tab of MLflow's compare page opens on the first parameter by name: keep it the threshold's.
            params={
                "exit_setting": setting.title, **self.params,
                **({"exit_threshold": setting.exit_threshold} if setting.exit_threshold is not None else {}),
                **({"fixed_depth": setting.fixed_depth} if setting.fixed_depth is not None else {}),
            },
            tags={"checkpoint": self.checkpoint, "label": self.label, **written.result["provenance"]},
        ) as run:  # fmt: skip
            run.log_metrics({name: value for name, value in written.metrics.items() if value is not None})
            for tenth, steps in enumerate(written.result.get("steps_by_phase", ())):
                if steps is not None:
                    run.log_metrics({"latent_steps_by_phase": steps}, step=tenth)
            run.log_file(written.path)
            for video in written.videos:
                run.log_file(video, "videos")
