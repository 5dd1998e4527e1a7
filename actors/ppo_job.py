"""What jobs/ppo_libero.py and jobs/ppo_calvin.py do: train a cloned policy with asynchronous PPO on a cluster."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from avavla_ray.command_line import default_workers
from avavla_ray.errors import InputError, check_fraction
from avavla_ray.training.devices import learners_gpus, ppo_gpus_each

if TYPE_CHECKING:
    from actors.async_ppo_config import AsyncPPOConfig
    from actors.settings import PPOSettings
    from avavla_ray.simulators.base import SimulatorConfig


@dataclass(frozen=True)
class Settings:
    """Settings of PPO (docs/ppo.md). What is left out comes from the recipe."""

    checkpoint: Path | None = None
    """Policy to start from, as behaviour cloning wrote it."""
    unnorm_key: str | None = None
    """Data set whose units are meant, where the checkpoint knows several."""
    demos: str | None = None
    """Demonstrations that the policy was cloned from, a folder or a URI: they keep its action head in step."""
    suite: str = "libero_object"
    tasks: tuple[int, ...] = ()
    """Task indices, played in turn; all when left out."""
    env_steps: int | None = None
    """Budget of environment steps; the paper's 1.2 million when no budget is given."""
    minutes: float | None = None
    """Budget of wall time, without start-up."""
    updates: int | None = None
    """Budget of updates."""
    recipe: str = "libero"
    """Named training settings: libero, paper, demo, tabletop, tiny, or a file of jobs/sweep_gae.py (JSON or TOML)."""
    update_decisions: int | None = None
    """Decisions an update waits for, over all learner ranks."""
    minibatch_decisions: int | None = None
    epochs: int | None = None
    policy_lr: float | None = None
    critic_lr: float | None = None
    gate_lr: float | None = None
    decay_updates: int | None = None
    """The policy's rate falls to 0 over the run's first so many updates: as many as --updates, for its last policy."""
    target_kl: float | None = None
    gamma: float | None = None
    gae_lambda: float | None = None
    value_clip: float | None = None
    """How far a value may go from what it was before the update."""
    normalise: Literal["decisions", "steps", "none"] | None = None
    """What advantages are normalised over."""
    correction: Literal["decoupled", "naive", "vtrace"] | None = None
    """How the loss corrects for data of older weights."""
    max_lag: int | None = None
    """Fragments made by weights more than so many updates old are dropped; 0 is synchronous PPO."""
    queue_decisions: int | None = None
    """Runners wait while so many decisions wait to be learned from; two updates' worth when left out."""
    delay_updates: int | None = None
    """Learn from experience so many updates late, for studies of what its age costs; at most --max-lag."""
    train_actions: bool | None = None
    """Draw the executed chunks too, and learn from how they did."""
    action_std: float | None = None
    """Deviation of that draw, in normalised units."""
    learn_action_std: bool | None = None
    """It is a parameter that learns."""
    exit_actions: bool | None = None
    """When to stop thinking is drawn and learned from the reward, instead of decided by the threshold."""
    compute_cost: float | None = None
    """Of a latent step, in the reward."""
    group_size: int | None = None
    """So many episodes from each start, compared with each other (GRPO): no critic."""
    curriculum: bool | None = None
    """Play the tasks more often that sometimes succeed and sometimes fail."""
    demonstration_weight: float | None = None
    """Weight of the cloning loss on --demos at the start."""
    imitation_weight: float | None = None
    """Weight of imitating the policy's own successes; goes with --train-actions."""
    train_gate: bool | None = None
    """Train the exit gate too; the paper does it afterwards, and so does the recipe named after it."""
    exit_threshold: float | None = None
    """Of the gate in rollouts; the policy's own when left out."""
    exit_preset: Path | None = None
    """Thresholds of the gate in rollouts, as jobs/sweep_exit.py found them best."""
    num_runners: int = max(1, default_workers() - 1)
    """Rollout processes; one core is left to the learner."""
    min_runners: int | None = None
    """Begin when so many are there, and let none of them go; 1 when left out, all with --max-lag 0."""
    simulators: int = 2
    """Simulators in each of them."""
    buffers: int = 2
    """Groups of them: while one group steps, the next one's actions are decided. 1: all step together."""
    fragment_decisions: int = 16
    """Decisions that a simulator takes between two deliveries."""
    isolate: bool = True
    """Simulators in processes of their own, which die instead of their runner."""
    placement: Literal["copy", "server"] = "copy"
    """Where the policy decides: a copy in each runner, or servers that all share."""
    num_servers: int = 1
    """Of these."""
    server_gpus: float = 0.0
    rollout_precision: Literal["float32", "bfloat16"] = "float32"
    """Of the backbone that decides in rollouts; bfloat16 is faster where the processor has instructions for it."""
    spot: str = "off"
    """How runners hear that their machine is about to be taken away: off, aws, gcp, or file:PATH."""
    learners: int = 1
    """DeepSpeed ranks."""
    learner_gpus: float | None = None
    """GPUs of each; left out: one where the cluster has, or its autoscaler could start, enough besides the servers';
    else, and with 0, they compute on CPUs."""
    zero_stage: Literal[0, 1, 2, 3] | None = None
    """What DeepSpeed shards: 1 optimizer, 2 and gradients, 3 and parameters. By default 2 on several ranks."""
    assets: str = "bundled"
    """official, bundled, or a folder laid out like LIBERO's assets."""
    render: Literal["reference", "fast"] = "fast"
    max_steps: int | None = None
    """Step limit of an episode; the suite's published one when left out."""
    preset: str = "small"
    """Policy to clone when there is no --checkpoint."""
    cloning_episodes: int = 10
    """Demonstrations a task to collect when there is no --checkpoint."""
    cloning_minutes: float = 2.0
    """Length of that cloning."""
    save_minutes: float = 5.0
    """Time between checkpoints that --resume can continue from."""
    profile: bool = False
    """Time all processes: OUTPUT/profile.txt and profile.png say where the time went."""
    output: Path = Path("runs/ppo")
    run_id: str | None = None
    """Identity of this run, in MLflow too; the output folder's name when left out. Given, the same command again
    goes on with it."""
    resume: bool = False
    """Continue the run in the output folder from its newest checkpoint."""
    seed: int = 0
    register: str | None = None
    """Name of a model in MLflow's registry: the checkpoint becomes its newest version."""
    tracking_uri: str | None = None
    """MLflow store; an SQLite file under runs/ when left out."""


CHOICES = ("update_decisions", "minibatch_decisions", "epochs", "policy_lr", "critic_lr", "gate_lr", "decay_updates",
           "target_kl", "gamma", "gae_lambda", "value_clip", "normalise", "correction", "max_lag", "action_std",
           "compute_cost", "group_size", "demonstration_weight", "imitation_weight", "train_gate", "train_actions",
           "learn_action_std", "exit_actions", "curriculum", "isolate")  # fmt: skip
# May change from one --resume to the next.
OPEN_ENDED = (
    "env_steps", "minutes", "updates", "save_minutes", "num_runners", "min_runners", "buffers", "placement",
    "num_servers", "server_gpus", "learner_gpus", "rollout_precision", "spot", "profile", "output", "run_id", "resume",
    "register", "tracking_uri",
)  # fmt: skip


def run(settings: Settings, *, calvin: bool) -> None:
    """Train with PPO in one of CALVIN's suites, or in any other.

    Raises:
        InputError: something given is wrong.
        SystemExit: the process was told to end (SIGTERM).
    """
    from avavla_ray.model_registry import check_name
    from avavla_ray.policy.checkpoint import load_checkpoint
    from avavla_ray.simulators.base import SimulatorConfig
    from avavla_ray.simulators.registry import identify
    from avavla_ray.storage.names import named
    from avavla_ray.storage.place import Place
    from avavla_ray.storage.recorded import recorded
    from avavla_ray.tracking import absolute_uri, check_store, default_uri, track
    from avavla_ray.training.output import check_output

    if settings.suite.startswith("calvin") != calvin:
        job = "ppo_libero" if calvin else "ppo_calvin"
        raise InputError(f"{settings.suite} is not this job's: jobs/{job}.py trains in it")
    ppo = choose(settings)
    simulator = SimulatorConfig(
        suite=settings.suite, tasks=settings.tasks, assets=settings.assets, render=settings.render,
        max_steps=settings.max_steps,
    )  # fmt: skip
    identify(simulator)
    check(settings, ppo)  # everything that can be wrong is looked at before anything slow starts
    uri = absolute_uri(settings.tracking_uri or default_uri())
    check_store(uri)
    check_name(settings.register)

    from actors.cluster import connect
    from actors.ppo_run import CURVES, PROFILES, Budget, finish, quiet, train

    limits = settings.env_steps, settings.minutes, settings.updates
    budget = Budget(*limits) if any(limit is not None for limit in limits) else Budget(1_200_000)
    config = configure(settings, ppo, simulator)
    quiet()
    config.validate()
    identity = {
        name: recorded(value.absolute() if isinstance(value, Path) else value)
        for name, value in asdict(settings).items() if name not in OPEN_ENDED
    }  # fmt: skip
    check_output(settings.output, {**identity, **asdict(ppo)}, settings.resume)
    servers = settings.num_servers if settings.placement == "server" else 0
    connect(cpus=settings.num_runners + settings.learners + servers)
    gpus = ppo_gpus_each(settings.learner_gpus, settings.learners, learners_gpus(), servers * settings.server_gpus)
    settings = replace(settings, learner_gpus=gpus)
    checkpoint, demos = settings.checkpoint, settings.demos
    if checkpoint is None:
        checkpoint, demos = clone_first(settings, uri, calvin)
    start = load_checkpoint(checkpoint)
    camera = start.policy.config.backbone.camera_size
    config = configure(settings, ppo, replace(simulator, image_size=camera), checkpoint, demos)
    print(
        f"PPO from {named(checkpoint)} ({start.stage}) on {settings.suite}, {settings.num_runners} runner(s) x "
        f"{settings.simulators} simulators, {settings.learners} learner rank(s) of {gpus:g} GPU(s)"
        f"{f', {servers} policy server(s)' if servers else ''}, {ppo.update_decisions} decisions an "
        f"update{'' if demos is None else f', cloning {Place.of(demos)} beside it'}",
        flush=True,
    )
    with track(
        f"ppo {settings.output.name}", kind="ppo", uri=uri, run_key=config.run_name, resume=settings.resume,
        params={"suite": settings.suite, "preset": start.policy.config.preset, **asdict(ppo)},
        tags={"trained_from": start.digest}, output=settings.output,
    ) as tracked:  # fmt: skip
        algorithm, points = train(
            config, budget, settings.output, resume=settings.resume, save_minutes=settings.save_minutes,
            log=lambda point: tracked.log_metrics(point, step=int(point["total/env_steps"])),
        )  # fmt: skip
        summary = finish(algorithm, points, settings.output, seed=settings.seed, trained_from=start.digest)
        tracked.set_tags(summary["provenance"])
        for name in ("summary.json", *CURVES, *PROFILES):
            if (settings.output / name).is_file():
                tracked.log_file(settings.output / name)
        if settings.register is not None:
            tracked.register_checkpoint(settings.output / "checkpoint", settings.register)


def choose(settings: Settings) -> PPOSettings:
    """The recipe with what the command line changes."""
    from actors.settings import recipe

    return recipe(settings.recipe, **{name: getattr(settings, name) for name in CHOICES})


def check(settings: Settings, ppo: PPOSettings) -> None:
    """Refuse what does not go together or does not exist."""
    from actors.cloning_stream import check_units
    from actors.learner_group import check_trainable
    from actors.termination import check_source
    from avavla_ray.demonstrations.reader import read_metadata
    from avavla_ray.policy.checkpoint import load_checkpoint

    if settings.num_runners < 1 or settings.simulators < 1 or settings.learners < 1:
        raise InputError("--num-runners, --simulators and --learners need to be at least 1 each")
    ppo_gpus_each(settings.learner_gpus, settings.learners, found=0)
    if settings.exit_threshold is not None:
        check_fraction("exit threshold", settings.exit_threshold)
        if settings.exit_preset is not None:
            raise InputError("--exit-preset says when to leave: give no --exit-threshold beside it")
    if ppo.decay_updates and (settings.updates is None or settings.updates > ppo.decay_updates):
        raise InputError(
            f"after --decay-updates {ppo.decay_updates} the policy stands still: give --updates, at most so many"
        )
    check_source(settings.spot)
    metadata = None if settings.demos is None else read_metadata(settings.demos)
    if settings.exit_preset is not None:
        check_thresholds(settings)
    if settings.checkpoint is not None:
        given = load_checkpoint(settings.checkpoint)
        check_trainable(given.policy.config, settings.checkpoint, ppo)
        statistics = given.statistics_of(settings.unnorm_key)
        if metadata is not None:
            check_units(str(metadata.folder), metadata.statistics, statistics)
    elif metadata is not None:
        raise InputError("--demos goes with the --checkpoint that was cloned from them: give that too")
    elif settings.unnorm_key is not None:
        raise InputError("--unnorm-key names a data set of the --checkpoint: give that too")


def check_thresholds(settings: Settings) -> None:
    """Refuse an exit preset that rollouts can't leave by."""
    from avavla_ray.evaluation.exit_setting import load_exit_preset
    from avavla_ray.policy.checkpoint import read_config
    from avavla_ray.policy.config import preset
    from avavla_ray.policy.folder import open_folder

    assert settings.exit_preset is not None
    start = settings.checkpoint
    config = preset(settings.preset) if start is None else read_config(open_folder(start, verify=False))
    if load_exit_preset(settings.exit_preset, config, families=False).exit_threshold is None:
        raise InputError(f"{settings.exit_preset} is a fixed depth: PPO's rollouts leave by thresholds, give some")


def exit_threshold_of(settings: Settings) -> Any:
    """One for all latent steps, one for each, or None for the policy's own."""
    from avavla_ray.evaluation.exit_setting import load_exit_preset

    if settings.exit_preset is None:
        return settings.exit_threshold
    return load_exit_preset(settings.exit_preset).exit_threshold


def configure(
    settings: Settings, ppo: PPOSettings, simulator: SimulatorConfig, checkpoint: Path | None = None,
    demos: str | None = None,
) -> AsyncPPOConfig:  # fmt: skip
    """RLlib's configuration of the run."""
    from actors.async_ppo_config import AsyncPPOConfig
    from avavla_ray.machines import for_learners, for_simulators
    from avavla_ray.storage.place import absolute
    from avavla_ray.training.engine import EngineSettings

    config: Any = AsyncPPOConfig()
    alone = 0 if settings.learners == 1 else 2
    stage = alone if settings.zero_stage is None else settings.zero_stage
    return (
        config.env_runners(
            num_env_runners=settings.num_runners, num_envs_per_env_runner=settings.simulators,
            rollout_fragment_length=settings.fragment_decisions, custom_resources_per_env_runner=for_simulators(),
        )
        .learners(
            num_learners=settings.learners, num_gpus_per_learner=settings.learner_gpus or 0,
            custom_resources_per_learner=for_learners(),
        )
        .resources(custom_resources_for_main_process=for_learners())  # of a trial; otherwise that is the driver
        .debugging(seed=settings.seed)
        .training(
            **asdict(ppo), checkpoint=None if checkpoint is None else str(checkpoint.absolute()),
            unnorm_key=settings.unnorm_key, demonstrations=demos and absolute(demos), simulator=simulator,
            exit_threshold=exit_threshold_of(settings), run_name=settings.run_id or settings.output.name,
            engine=EngineSettings(zero_stage=stage), min_env_runners=settings.min_runners,
            buffers=settings.buffers, policy_placement=settings.placement, num_policy_servers=settings.num_servers,
            num_gpus_per_server=settings.server_gpus, custom_resources_per_server=for_learners(),
            rollout_precision=settings.rollout_precision,
            queue_decisions=settings.queue_decisions, delay_updates=settings.delay_updates or 0,
            spot=settings.spot, profile=settings.profile,
        )
    )  # fmt: skip


def clone_first(settings: Settings, uri: str, calvin: bool) -> tuple[Path, str]:
    """A policy to start from when none was given: collect a few demonstrations and clone them for a little while.

    Returns:
        The policy's checkpoint, and the demonstrations.
    """
    import collect_demos  # jobs/collect_demos.py, beside the job that runs

    from actors import cloning_job
    from avavla_ray.policy.config import preset
    from avavla_ray.simulators.registry import CHAINS
    from avavla_ray.storage.sharing import recover, shared

    folder = settings.output / "cloning"
    demos, cloned = str(folder / "demos"), folder / "bc"
    if not (cloned / "checkpoint").is_dir():
        print(
            f"no --checkpoint: collecting {settings.cloning_episodes} demonstrations a task and cloning them for "
            f"{settings.cloning_minutes} minutes first, in {folder}",
            flush=True,
        )
        recover(Path(demos))  # what a machine that is lost had collected
        chains = settings.suite.endswith(CHAINS)  # whose tasks are lengths; they are made of the suite's own
        collect_demos.main(
            collect_demos.Settings(
                suite=settings.suite.removesuffix(CHAINS), tasks=() if chains else settings.tasks,
                episodes=settings.cloning_episodes, assets=settings.assets, render=settings.render, output=Path(demos),
                image_size=preset(settings.preset).backbone.camera_size, seed=settings.seed,
                num_runners=settings.num_runners,
            )
        )  # fmt: skip
        cloning_job.run(
            cloning_job.Settings(
                demos=(shared(Path(demos)),), preset=settings.preset, recipe="demo", workers=1,
                minutes=settings.cloning_minutes, output=cloned, resume=(cloned / "settings.json").is_file(),
                seed=settings.seed, tracking_uri=uri, run_id=f"{settings.run_id or settings.output.name}/cloning",
            ),
            calvin=calvin,
        )  # fmt: skip
    return cloned / "checkpoint", shared(Path(demos))
