"""Finds hf-libero and makes its import silent, headless and free of questions."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from avavla_ray.errors import InputError
from avavla_ray.files import cache_folder, write_text
from avavla_ray.simulators.mujoco_physics import log_warnings
from avavla_ray.simulators.opengl import check_opengl, choose_renderer

ROBOSUITE_LOG = Path("/tmp/robosuite.log")


@functools.cache
def libero_root() -> Path:
    """Folder of hf-libero's inner package, which holds bddl_files, init_files and benchmark; imports nothing.

    Raises:
        InputError: hf-libero is not installed.
    """
    spec = importlib.util.find_spec("libero")
    for folder in (spec and spec.submodule_search_locations) or ():
        root = Path(folder) / "libero"
        if (root / "bddl_files").is_dir():
            return root
    raise InputError("the LIBERO simulator is not installed (no package hf-libero): run 'make setup'")


@contextlib.contextmanager
def _cuda_devices_hidden() -> Iterator[None]:
    # robosuite's import insists that the number of the EGL device be among CUDA's, which count differently.
    visible = os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    try:
        yield
    finally:
        if visible is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = visible


def _write_libero_config(root: Path) -> None:
    # Without a config.yaml the import asks on standard input where data sets should go.
    if "LIBERO_CONFIG_PATH" not in os.environ:
        name = hashlib.sha256(str(root).encode()).hexdigest()[:12]
        os.environ["LIBERO_CONFIG_PATH"] = str(cache_folder() / "libero-config" / name)
    config = Path(os.environ["LIBERO_CONFIG_PATH"]) / "config.yaml"
    if not config.exists():
        places = {
            "benchmark_root": root, "bddl_files": root / "bddl_files", "init_states": root / "init_files",
            "datasets": root.parent / "datasets", "assets": root / "assets",
        }  # fmt: skip
        # JSON strings are YAML strings, so no YAML library is needed this early.
        write_text(config, "".join(f"{key}: {json.dumps(str(place))}\n" for key, place in places.items()))


def _check_robosuite_log() -> None:
    # robosuite opens this very file when it is imported, and on a shared machine it may belong to somebody else.
    if ROBOSUITE_LOG.exists() and not os.access(ROBOSUITE_LOG, os.W_OK):
        raise InputError(f"robosuite must write {ROBOSUITE_LOG}, which belongs to another user: have it removed")


def _check_egl_device() -> None:
    # robosuite finds out only when it builds a renderer, and then adds a traceback of its own.
    from robosuite.renderers.context import egl_context

    if egl_context.create_initialized_egl_device_display() == egl_context.EGL.EGL_NO_DISPLAY:
        raise ImportError(f"EGL device {os.environ['MUJOCO_EGL_DEVICE_ID']} has no display")


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Say what to do about what keeps LIBERO from being imported."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise InputError(f"LIBERO needs the package {error.name}, which is not installed: run 'make setup'") from error
    except (ImportError, AttributeError, RuntimeError) as error:
        # What the OpenGL bindings raise depends on which of their libraries is missing or finds no device.
        raise InputError(
            f"OpenGL cannot render headless here ({error}): "
            "install libegl1 and libgl1-mesa-dri, or set MUJOCO_EGL_DEVICE_ID or MUJOCO_GL=osmesa"
        ) from error


@functools.cache
def preload() -> None:
    """Set what must be set before mujoco, robosuite and libero are imported in this process, then import them.

    Starts neither threads nor graphics, so that a process can be forked afterwards.

    Raises:
        InputError: hf-libero, robosuite or an OpenGL library is missing.
    """
    root = libero_root()
    check_opengl()
    choose_renderer()
    _write_libero_config(root)
    _check_robosuite_log()
    # Compiling robosuite's controllers takes 12 s; site-packages may be read-only, so the result is kept here.
    os.environ.setdefault("NUMBA_CACHE_DIR", str(cache_folder() / "numba"))
    logging.getLogger("robosuite_logs").addFilter(lambda record: "macro" not in str(record.msg))
    with _explained(), _cuda_devices_hidden():
        import libero.libero.envs  # noqa: F401
    log_warnings()


@functools.cache
def prepare() -> None:
    """`preload`, and see that a device can render.

    Raises:
        InputError: as `preload`, or none of the devices can render.
    """
    preload()
    if os.environ["MUJOCO_GL"] == "egl":
        with _explained():
            _check_egl_device()
