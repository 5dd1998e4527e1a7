"""The generated set: complete, small, the same every time, and safe to make from several processes."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import mujoco
import pytest

from avavla_ray.errors import InputError
from avavla_ray.simulators.libero.bundled.build import ensure_bundled_assets, generate, generator_digest
from avavla_ray.simulators.libero.bundled.items import ITEMS

HOPE = (
    "alphabet_soup", "bbq_sauce", "butter", "chocolate_pudding", "cookies", "cream_cheese", "ketchup", "milk",
    "new_salad_dressing", "orange_juice", "salad_dressing", "tomato_sauce",
)  # fmt: skip
SCANNED = ("akita_black_bowl", "basket", "chefmate_8_frypan", "glazed_rim_porcelain_ramekin", "plate", "white_bowl")
TURBOSQUID = (
    "black_book", "desk_caddy", "moka_pot", "porcelain_mug", "red_coffee_mug", "white_yellow_mug", "wine_bottle",
    "wine_rack", "wooden_tray", "wooden_two_layer_shelf", "yellow_book",
)  # fmt: skip
EXPECTED = {
    *(f"stable_hope_objects/{name}/{name}.xml" for name in HOPE),
    *(f"stable_scanned_objects/{name}/{name}.xml" for name in SCANNED),
    *(f"turbosquid_objects/{name}/{name}.xml" for name in TURBOSQUID),
    "articulated_objects/wooden_cabinet.xml", "articulated_objects/flat_stove.xml",
    "articulated_objects/white_cabinet.xml", "articulated_objects/microwave.xml",
    "scenes/libero_floor_base_style.xml", "scenes/libero_tabletop_base_style.xml",
    "scenes/libero_kitchen_tabletop_base_style.xml", "scenes/libero_living_room_tabletop_base_style.xml",
    "scenes/libero_study_base_style.xml",
    "textures/light-gray-floor-tile.png", "textures/light-gray-plaster.png",
    "textures/bundled_table.png", "textures/bundled_walnut.png",
    "textures/gray_ceramic_tile.png", "textures/seamless_wood_planks_floor.png",
    "textures/yellow_linen_wall_texture.png", "textures/bundled_dark_table.png", "textures/bundled_desk.png",
    "textures/bundled_maple.png", "textures/bundled_white_wood.png",
}  # fmt: skip
# Names that LIBERO's placement and predicates look up, and the names of what moves.
CABINET = (
    {"top_side", "top_region", "middle_region", "bottom_region"},
    {"top_level", "middle_level", "bottom_level"},
)
NAMES = {
    "basket": ({"contain_region"}, set()),
    "desk_caddy": ({f"{side}_contain_region" for side in ("front", "back", "left", "right")}, set()),
    "flat_stove": ({"cook_region", "burner"}, {"button"}),
    "microwave": ({"heating_region", "top_side"}, {"microjoint"}),
    "white_cabinet": CABINET,
    "wine_rack": ({"top_region"}, set()),
    "wooden_cabinet": CABINET,
    "wooden_tray": ({"contain_region"}, set()),
    "wooden_two_layer_shelf": ({"top_side", "top_region", "bottom_region"}, set()),
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AVAVLA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_set_holds_what_the_suites_load_and_is_small() -> None:
    files = generate()
    assert set(files) == EXPECTED
    assert sum(map(len, files.values())) < 700_000


def test_generating_twice_gives_the_same_bytes() -> None:
    assert generate() == generate()


@pytest.mark.parametrize("path", sorted(path for path in EXPECTED if "objects" in path))
def test_objects_compile_with_the_names_that_libero_looks_up(path: str, cache: Path) -> None:
    file = ensure_bundled_assets() / path
    model = mujoco.MjModel.from_xml_path(str(file))
    sites = {model.site(i).name for i in range(model.nsite)}
    joints = {model.joint(i).name for i in range(model.njnt)}
    regions, moving = NAMES.get(file.stem, (set(), set()))
    assert sites == {"bottom_site", "top_site", "horizontal_radius_site"} | regions
    assert joints == moving
    assert ET.parse(file).find("worldbody/body/body[@name='object']") is not None


def test_loose_objects_weigh_what_their_row_says(cache: Path) -> None:
    root = ensure_bundled_assets()
    loose = [item for item in ITEMS if item.mass is not None]
    assert len(loose) > 20
    for item in loose:
        model = mujoco.MjModel.from_xml_path(str(root / item.path))
        assert model.body("object").mass[0] == pytest.approx(item.mass, rel=1e-3), item.path


def test_the_parts_of_a_fixture_touch_others_but_never_each_other(cache: Path) -> None:
    root = ensure_bundled_assets()
    for item in ITEMS:
        model = mujoco.MjModel.from_xml_path(str(root / item.path))
        solid = model.geom_group == 0
        assert solid.any(), item.path
        assert (model.geom_conaffinity[solid] == 1).all(), item.path
        assert (model.geom_contype[solid] == (0 if item.mass is None else 1)).all(), item.path
        assert not model.geom_contype[~solid].any(), item.path


def test_the_set_is_generated_once_and_mended_when_a_file_is_gone(cache: Path) -> None:
    root = ensure_bundled_assets()
    assert root.parent == cache / "bundled-assets"
    assert root.name == generator_digest()[:16]
    plate = root / "stable_scanned_objects/plate/plate.xml"
    before = plate.stat().st_mtime_ns
    assert ensure_bundled_assets() == root
    assert plate.stat().st_mtime_ns == before
    plate.unlink()
    ensure_bundled_assets()
    assert plate.read_bytes() == generate()["stable_scanned_objects/plate/plate.xml"]


def test_processes_that_start_together_share_one_set(cache: Path) -> None:
    code = "from avavla_ray.simulators.libero.bundled.build import *; print(ensure_bundled_assets())"
    started = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=dict(os.environ))
        for _ in range(3)
    ]
    outputs = {process.communicate(timeout=60)[0].strip() for process in started}
    assert [process.returncode for process in started] == [0, 0, 0]
    assert len(outputs) == 1
    root = Path(outputs.pop())
    assert {str(file.relative_to(root)) for file in root.rglob("*.*") if file.is_file()} >= EXPECTED
    assert not list(root.parent.glob("*.tmp"))


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("AVAVLA_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match="AVAVLA_CACHE"):
        ensure_bundled_assets()
