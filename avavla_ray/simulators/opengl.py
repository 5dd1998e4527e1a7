"""Headless OpenGL: which library renders, said before anything that renders is imported."""

from __future__ import annotations

import ctypes
import os

from avavla_ray.errors import InputError

# A machine started with one of these renders so, whatever the job says, which is one for all machines.
OF_THIS_MACHINE = {"AVAVLA_GL": "MUJOCO_GL", "AVAVLA_EGL_DEVICE": "MUJOCO_EGL_DEVICE_ID"}
GL_LIBRARIES = {"egl": ("libEGL.so.1", "libegl1"), "osmesa": ("libOSMesa.so.8", "libosmesa6")}


def check_opengl() -> None:
    """Refuse to go on without a library for headless rendering; MUJOCO_GL chooses between egl and osmesa.

    Raises:
        InputError: unknown MUJOCO_GL, or its library is missing.
    """
    backend = (os.environ.get("AVAVLA_GL") or os.environ.get("MUJOCO_GL", "egl")).lower()
    if backend not in GL_LIBRARIES:
        raise InputError(f"MUJOCO_GL={backend} cannot render headless: set it to egl or osmesa")
    library, package = GL_LIBRARIES[backend]
    try:
        ctypes.CDLL(library)
    except OSError:
        raise InputError(
            f"no OpenGL library for headless rendering ({library}): "
            f"install it with 'apt-get install {package} libgl1 libgl1-mesa-dri'"
        ) from None


def choose_renderer() -> None:
    """Set MuJoCo's environment variables for headless rendering; to be called before mujoco is imported."""
    for own, name in OF_THIS_MACHINE.items():
        if os.environ.get(own):
            os.environ[name] = os.environ[own]
    backend = os.environ.setdefault("MUJOCO_GL", "egl").lower()
    os.environ["MUJOCO_GL"] = os.environ["PYOPENGL_PLATFORM"] = backend
    # Which EGL device draws, the first: a GPU where its driver is, else Mesa. Without it robosuite would parse
    # CUDA_VISIBLE_DEVICES, which Ray sets where an actor has GPUs, and which may be empty.
    os.environ.setdefault("MUJOCO_EGL_DEVICE_ID", "0")
