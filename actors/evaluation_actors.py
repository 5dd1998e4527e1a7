"""The actors of an evaluation: those that own a simulator each, and servers that decide for all of them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import ray
import torch
from ray.exceptions import GetTimeoutError, RayActorError

from actors.evaluation_queue import ATTEMPTS, Play
from actors.placement import PolicyServerLost
from avavla_ray.errors import InputError
from avavla_ray.machines import for_learners
from avavla_ray.policy.agent import Agent
from avavla_ray.policy.config import PolicyConfig
from avavla_ray.policy.types import Belief, DecisionBatch
from avavla_ray.simulators.base import Observation, Simulator, SimulatorConfig, SimulatorFailure
from avavla_ray.simulators.isolated.simulator import IsolatedSimulator

SimulatorFactory = Callable[[SimulatorConfig], Simulator]
ANSWER_S = 300.0  # in which a server that has answered before has every actor's question behind it
START_S = 1800.0  # in which one has read its policy, and may have waited for a machine to come up


class DecisionServer:
    """A policy that decides for several simulators, on its GPU or on the CPU where it was given none.

    One question at a time: a decision's numbers then depend on nobody who asks beside it, not even by rounding, and its
    milliseconds are those of a single robot. It has no state: one that Ray has started again answers as the one before.

    The policy comes with the questions, as a reference, in a list so that it is not read at every one: Ray warns of
    constructors that a restart needs something large for.
    """

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self._agent: Agent | None = None

    def _ready(self, held: list[ray.ObjectRef]) -> Agent:
        if self._agent is None:
            gpus = ray.get_gpu_ids()
            if gpus and not torch.cuda.is_available():  # the CPU would decide, and the results would say the GPU had
                raise InputError(
                    f"a policy server was given GPU {', '.join(map(str, gpus))}, but torch {torch.__version__} there "
                    "has no CUDA: install a build that does, or leave out --server-gpus to decide on the CPU"
                )
            self._agent = ray.get(held[0])
            if gpus:
                self._agent.policy.to("cuda")
        return self._agent

    def decide(
        self, held: list[ray.ObjectRef], observations: list[Observation], belief: Belief, options: dict[str, Any]
    ) -> tuple[DecisionBatch, Any, float]:
        """See `Agent.decide`; tensors come back on the CPU."""
        agent = self._ready(held)
        here = Belief(*(part.to(agent.device) for part in belief))
        with torch.no_grad():
            decision, actions, milliseconds = agent.decide(observations, here, **options)
        return _on_cpu(decision), actions, milliseconds

    def device(self, held: list[ray.ObjectRef]) -> str:
        """What decides, for people.

        Raises:
            InputError: it was given a GPU that torch can't use.
        """
        return torch.cuda.get_device_name() if self._ready(held).device.type == "cuda" else "cpu"


def _on_cpu(parts: Any) -> Any:
    """A named tuple of tensors, and of such tuples, on the CPU."""
    if isinstance(parts, torch.Tensor):
        return parts.cpu()
    return type(parts)(*map(_on_cpu, parts))


class ServedAgent:
    """Decides as an `Agent` does, by asking a server.

    A server that dies is started again by Ray, which asks it again; one that is silent for too long is ended for that.

    Args:
        server: handle of a `DecisionServer`. held: a reference to the agent that it decides with, in a list.
        config: of its policy. beginning: the belief that an episode starts with.
    """

    def __init__(self, server: Any, held: list[ray.ObjectRef], config: PolicyConfig, beginning: Belief) -> None:
        self._server, self._held = server, held
        self.config, self._beginning = config, beginning
        self._patience = START_S

    def initial_belief(self) -> Belief:
        """See `Agent.initial_belief`."""
        return self._beginning

    def decide(
        self, observations: list[Observation], belief: Belief, **options: Any
    ) -> tuple[DecisionBatch, Any, float]:
        """See `Agent.decide`.

        Raises:
            PolicyServerLost: no answer, though the server was started again; or it can't be.
        """
        for _ in range(ATTEMPTS):
            answer = self._server.decide.remote(self._held, observations, belief, options)
            try:
                decided = ray.get(answer, timeout=self._patience)
            except RayActorError as error:
                raise PolicyServerLost(f"a policy server can't be started: {error}", "crash") from error
            except GetTimeoutError:
                print(f"a policy server has not answered for {self._patience:.0f} s: it is started again", flush=True)
                ray.kill(self._server, no_restart=False)
                self._patience = START_S
            else:
                self._patience = ANSWER_S
                return decided
        raise PolicyServerLost(f"no policy server has answered, {ATTEMPTS} times", "hang")


def start_servers(count: int, gpus: float) -> list[Any]:
    """Servers that come back by themselves when they die, and are then asked again. They end with whoever starts
    them."""
    there = ray.cluster_resources().get("GPU", 0)
    if there < count * gpus:
        print(
            f"the cluster has {there:g} GPUs and the policy servers reserve {count * gpus:g}: they wait until there "
            "are more; without an autoscaler, stop and lower --num-servers or --server-gpus (0 decides on the CPU)",
            flush=True,
        )
    actor: Any = ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=-1, max_task_retries=-1)(DecisionServer)
    return [actor.options(resources=for_learners()).remote() for _ in range(count)]


class Evaluator:
    """Plays; keeps its simulator between episodes.

    Args:
        agent: decides; None where nobody is asked (scripted experts).
    """

    def __init__(self, agent: Agent | ServedAgent | None, config: SimulatorConfig, factory: SimulatorFactory) -> None:
        torch.set_num_threads(1)
        self._agent = agent
        self._make = functools.partial(factory, config)
        self._simulator: Simulator | None = None
        self._cold = True

    def _ready(self) -> Simulator:
        if self._simulator is None:
            self._simulator = self._make()
        return self._simulator

    def _warm_up(self, simulator: Simulator) -> None:
        """The first decision of a process allocates and chooses kernels: no robot's latency."""
        if self._cold and self._agent is not None:
            spec, size = simulator.spec, simulator.config.image_size
            black = np.zeros((spec.num_cameras, size, size, 3), np.uint8)
            observation = Observation(black, np.zeros(spec.proprio_dim, np.float32), spec.instructions[0])
            with torch.no_grad():
                self._agent.decide([observation], self._agent.initial_belief())
        self._cold = False

    def play(self, play: Play, attempt: int) -> tuple[Any, Any]:
        """See `Play.play`."""
        simulator = self._ready()
        self._warm_up(simulator)
        try:
            return play.play(simulator, self._agent, attempt)
        except SimulatorFailure:
            if not isinstance(simulator, IsolatedSimulator):  # that one starts another process by itself
                self._simulator = None
                simulator.close()
            raise

    def node(self) -> str:
        """Which of the cluster's machines this is."""
        return ray.get_runtime_context().get_node_id()

    def provenance(self) -> dict[str, object]:
        """What the simulator says of itself."""
        return {"isolated": False, **self._ready().provenance()}


RemoteEvaluator: Any = ray.remote(num_cpus=1)(Evaluator)
