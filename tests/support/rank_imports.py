"""What training ranks import, for the process that they are forks of."""

from avavla_ray.training import cloning_worker, engine

engine._deepspeed()
__all__ = ["cloning_worker"]
