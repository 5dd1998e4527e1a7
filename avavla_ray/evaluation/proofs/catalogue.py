"""The proofs and their sizes. Whoever tunes a training changes the numbers at the top."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from avavla_ray.errors import check_known
from avavla_ray.evaluation.proofs.step import Inside, Play, Proof, Step, Word
from avavla_ray.evaluation.proofs.targets import (
    GainAtLeast,
    IntervalsApart,
    LatentStepsAtMost,
    LengthAtLeast,
    LongerThan,
    SuccessAtLeast,
    SuccessBetween,
    SuccessInside,
)
from avavla_ray.policy.checkpoint import VALUED

NOISE = 0.2  # of the expert's motions, in all demonstrations
DEPTH = 5  # latent steps that are evaluated at a fixed depth

MANY = 50  # demonstrations a task
BC_RECIPE, BC_WORDS = "libero", ()

FEW = 2  # demonstrations a task that PPO starts from
FEW_RECIPE, FEW_WORDS = "few", ()
PPO_RECIPE, PPO_WORDS = "libero", ("--simulators", 8, "--updates", 90, "--decay-updates", 90)
GAIN = 0.25

# Calibration needs a value head, which cloning does not train: so much PPO first, which hardly moves the policy.
CRITIC_RECIPE, CRITIC_WORDS = "libero", ("--updates", 25, "--policy-lr", 1e-5, "--imitation-weight", 0)
CALIBRATION_WORDS = ("--episodes", 10, "--delta", 0.02)
# Settings are chosen on the first initial states, and confirmed on as many others.
SWEEP_WORDS = ("--episodes", 10, "--recommend", "adaptive")

MEMORY_DEMOS = 1000  # each has four decisions: of a hundred they are learned by heart, and no block is remembered
MEMORY_RECIPE = "tabletop"
MEMORY_PICTURES = ("--image-size", 32)  # as that preset sees them
# Noise on what the arm feels: it would tell one episode from another, and the lamp would never be looked at.
MEMORY_WORDS = ("--preset", "tabletop", "--steps", 2000, "--decisions", 4, "--streams", 32, "--proprio-noise", 0.2)

# So few steps that success is not yet near 1, where all policies are alike.
BELIEF_RECIPE, BELIEF_WORDS = "libero", ("--steps", 3000)

CALVIN_DEMOS = 50
CALVIN_LEAD_IN = ("--lead-in", 0.5)  # four of a chain's five tasks begin where another has ended
# `small`'s own keypoints do not find blocks that are one cell of its last map wide.
CALVIN_RECIPE, CALVIN_WORDS = "libero", ("--preset", "small_fine")
CALVIN_PPO_RECIPE, CALVIN_PPO_WORDS = "libero", ("--simulators", 8, "--updates", 90, "--decay-updates", 90)
CHAINS = 1000
LENGTH = 1.5


@dataclass(frozen=True)
class Options:
    """What a person chooses of a proof.

    Attributes:
        assets, render: as all jobs take them; suites without assets ignore them.
        checkpoint: that `early_exit` starts from; the finished one of `bc_object` of the same seed when None.
        stage, digest: of that checkpoint.
    """

    seed: int = 0
    assets: str = "bundled"
    render: str = "fast"
    checkpoint: Path | None = None
    stage: str = "bc"
    digest: str = ""

    def seeded(self) -> tuple[Word, ...]:
        """Flags of all jobs."""
        return "--seed", self.seed

    def scene(self, suite: str) -> tuple[Word, ...]:
        """Flags of all jobs with simulators."""
        return "--suite", suite, "--assets", self.assets, "--render", self.render, *self.seeded()


def proof(name: str, options: Options) -> Proof:
    """The proof of this name.

    Raises:
        InputError: there is none.
    """
    check_known("proof", name, PROOFS)
    return PROOFS[name](options)


def default_folder(name: str, seed: int) -> Path:
    """Where a proof is run."""
    return Path("runs/proofs") / f"{name}-{seed}"


def _many(name: str, suite: str, least: float) -> Callable[[Options], Proof]:
    def make(options: Options) -> Proof:
        return Proof(
            name,
            f"One policy of the preset `small`, cloned from {MANY} demonstrations a task, solves the ten tasks of "
            f"{suite}.",
            (
                collect(suite, MANY, options),
                clone("bc", options, recipe=BC_RECIPE, words=BC_WORDS),
                play("evaluate", "bc", suite, options, label="BC"),
            ),
            (Play("BC", "evaluate"),),
            (SuccessAtLeast("BC", least),),
        )  # fmt: skip

    return make


def _ppo_object(options: Options) -> Proof:
    suite = "libero_object"
    return Proof(
        "ppo_object",
        f"Asynchronous PPO lifts one policy for the ten tasks of {suite}, cloned from {FEW} demonstrations a task, by "
        f"at least {100 * GAIN:g} points.",
        (
            collect(suite, FEW, options),
            clone("bc", options, recipe=FEW_RECIPE, words=FEW_WORDS),
            play("evaluate-bc", "bc", suite, options, label="BC"),
            reinforce("ppo", Inside("bc/checkpoint"), suite, options, recipe=PPO_RECIPE, words=PPO_WORDS),
            play("evaluate-ppo", "ppo", suite, options, label="PPO"),
        ),
        (Play("BC", "evaluate-bc"), Play("PPO", "evaluate-ppo", against="BC")),
        (SuccessBetween("BC", 0.1, 0.6), GainAtLeast("PPO", "BC", GAIN), IntervalsApart("PPO", "BC")),
    )  # fmt: skip


def _early_exit(options: Options) -> Proof:
    suite = "libero_object"
    given = options.checkpoint or default_folder("bc_object", options.seed) / "bc/checkpoint"
    start: Word = str(given)
    steps: list[Step] = []
    if options.stage not in VALUED:
        steps.append(
            reinforce("ppo", start, suite, options, recipe=CRITIC_RECIPE, words=CRITIC_WORDS, demos=None)
        )  # fmt: skip
        start = Inside("ppo/checkpoint")
    calibrated = Inside("calibrated/checkpoint")
    steps += [
        Step("calibrated", "the exit gate is calibrated", "calibrate_exit",
             ("--checkpoint", start, *CALIBRATION_WORDS, *options.scene(suite)), "checkpoint/manifest.json"),
        Step("sweep", "thresholds and depths are played", "sweep_exit",
             ("--checkpoint", calibrated, *SWEEP_WORDS, *options.scene(suite)), "exit_preset.json"),
        play("evaluate-fixed", "calibrated", suite, options, label="fixed"),
        play("evaluate-adaptive", "calibrated", suite, options, label="adaptive",
             exits=("--exit-preset", Inside("sweep/exit_preset.json"))),
    ]  # fmt: skip
    fixed = f"fixed depth {DEPTH}"
    return Proof(
        "early_exit",
        "After calibration the policy stops thinking when it is sure: half of the latent steps, and success as at "
        f"{fixed}. Thresholds are chosen on the first {SWEEP_WORDS[1]} initial states; both rows are of all 50.",
        tuple(steps),
        (Play(fixed, "evaluate-fixed"), Play("adaptive", "evaluate-adaptive", against=fixed)),
        (LatentStepsAtMost("adaptive", fixed, 0.5), SuccessInside("adaptive", fixed)),
    )


def _belief(
    name: str, suite: str, about: str, demonstrations: int, recipe: str, words: Sequence[Word],
    pictures: Sequence[Word] = (),
) -> Callable[[Options], Proof]:  # fmt: skip
    def make(options: Options) -> Proof:
        return Proof(
            name,
            f"{about}: two policies cloned from the same demonstrations for as many steps, one of them without belief.",
            (
                collect(suite, demonstrations, options, pictures),
                clone("bc", options, recipe=recipe, words=words),
                clone("bc-without", options, recipe=recipe, words=("--without", "belief", *words),
                      title="cloning without belief"),
                play("evaluate", "bc", suite, options, label="belief"),
                play("evaluate-without", "bc-without", suite, options, label="no belief"),
            ),
            (Play("no belief", "evaluate-without"), Play("belief", "evaluate", against="no belief")),
            (IntervalsApart("belief", "no belief"),),
        )  # fmt: skip

    return make


def _calvin_d(options: Options) -> Proof:
    suite, chains = "calvin_d", "calvin_d_chains"
    some = ("--episodes", CHAINS)
    return Proof(
        "calvin_d",
        f"CALVIN, scene D: one policy of the preset `small_fine`, cloned from {CALVIN_DEMOS} demonstrations of each of "
        "its 34 tasks, does several tasks in a row, and PPO on chains makes that more.",
        (
            collect(suite, CALVIN_DEMOS, options, CALVIN_LEAD_IN),
            clone("bc", options, recipe=CALVIN_RECIPE, words=CALVIN_WORDS, job="bc_calvin"),
            play("evaluate-bc", "bc", chains, options, label="BC", words=some),
            reinforce("ppo", Inside("bc/checkpoint"), chains, options, recipe=CALVIN_PPO_RECIPE,
                      words=CALVIN_PPO_WORDS, job="ppo_calvin"),
            play("evaluate-ppo", "ppo", chains, options, label="PPO", words=some),
        ),
        (Play("BC", "evaluate-bc"), Play("PPO", "evaluate-ppo", against="BC")),
        (LengthAtLeast("BC", LENGTH), LongerThan("PPO", "BC")),
    )  # fmt: skip


def collect(suite: str, episodes: int, options: Options, words: Sequence[Word] = ()) -> Step:
    """Demonstrations of the scripted expert, into demos/."""
    return Step(
        "demos", f"{episodes} demonstrations a task", "collect_demos",
        ("--episodes", episodes, "--noise", NOISE, *words, *options.scene(suite)), "dataset.json",
    )  # fmt: skip


def clone(
    key: str, options: Options, *, recipe: str, words: Sequence[Word] = (), job: str = "bc_libero",
    title: str = "cloning",
) -> Step:  # fmt: skip
    """Behaviour cloning of demos/."""
    return Step(
        key, title, job, ("--demos", Inside("demos"), "--recipe", recipe, *words, *options.seeded()),
        "checkpoint/manifest.json",
    )  # fmt: skip


def reinforce(
    key: str, start: Word, suite: str, options: Options, *, recipe: str, words: Sequence[Word] = (),
    job: str = "ppo_libero", demos: str | None = "demos",
) -> Step:  # fmt: skip
    """Asynchronous PPO from a checkpoint, with demos/ beside it where there are any."""
    beside = ("--demos", Inside(demos)) if demos else ()
    return Step(
        key, "asynchronous PPO", job,
        ("--checkpoint", start, *beside, "--recipe", recipe, *words, *options.scene(suite)),
        "checkpoint/manifest.json",
    )  # fmt: skip


def play(
    key: str, trained: str, suite: str, options: Options, *, label: str, words: Sequence[Word] = (),
    exits: Sequence[Word] = ("--thresholds", "--depths", DEPTH),
) -> Step:  # fmt: skip
    """The benchmark's fixed initial states, with the checkpoint of another step, at one exit setting."""
    return Step(
        key, f"evaluation: {label}", "evaluate",
        ("--checkpoint", Inside(f"{trained}/checkpoint"), "--label", label, *exits, *words, *options.scene(suite)),
        "table.md",
    )  # fmt: skip


PROOFS: dict[str, Callable[[Options], Proof]] = {
    "bc_object": _many("bc_object", "libero_object", 0.85),
    "bc_spatial": _many("bc_spatial", "libero_spatial", 0.80),
    "ppo_object": _ppo_object,
    "early_exit": _early_exit,
    "memory_tabletop": _belief(
        "memory_tabletop", "tabletop_memory", "The belief carries what is no longer to be seen",
        MEMORY_DEMOS, MEMORY_RECIPE, MEMORY_WORDS, MEMORY_PICTURES,
    ),
    "belief_object": _belief(
        "belief_object", "libero_object", "Whether the belief matters where all is to be seen",
        MANY, BELIEF_RECIPE, BELIEF_WORDS,
    ),
    "calvin_d": _calvin_d,
}  # fmt: skip
