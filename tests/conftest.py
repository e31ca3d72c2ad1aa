"""Eight simulated devices, and every preset in a size for tests."""

import dataclasses
import gc
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
# Tests compile far more than they compute.
os.environ["XLA_FLAGS"] = " ".join(
    [
        "--xla_force_host_platform_device_count=8",
        "--xla_backend_optimization_level=0",
        "--xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters",
    ]
)
os.environ["TPU_SKIP_MDS_QUERY"] = "1"

import jax
import pytest

from helpers import POD_SIZES, arguments_of, of_preset, run, shrink, words
from octavo.ablation.place import Place
from octavo.ablation.plan import Planned, plan
from octavo.ablation.study import Study
from octavo.configs import presets
from octavo.configs.model import ModelConfig
from octavo.configs.schema import Config, DataConfig, OptimizerConfig, TrainConfig
from octavo.data.prepare import prepare
from octavo.data.sources import find_units
from octavo.tokenizers.bytes import ByteTokenizer
from studies import ARMS, SHAPE, TINY, asked, write_study

# Processes that tests start compile the same programs again and again; tests themselves do not.
os.environ["JAX_COMPILATION_CACHE_DIR"] = os.path.join(tempfile.gettempdir(), "octavo-tests-jax")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
jax.config.update("jax_enable_compilation_cache", False)

# Tracing makes many objects, and few that are garbage.
gc.set_threshold(100_000, 20, 100)

# One of each system: its other sizes differ in what tests shrink.
_PRESETS = [
    of_preset(name) for name in presets() if name == "flat-100m" or not name.endswith(POD_SIZES)
]


def pytest_collection_modifyitems(items):
    """What one worker must do alone and takes longest begins first."""
    items.sort(key=lambda item: item.path.name != "test_tpu_compile.py")


FINISHED = itertools.count(1)


@pytest.fixture(autouse=True)
def signals_as_usual():
    """What is ignored is inherited, and respected by what tests start: a background job ignores
    some, and so does libtpu once it is loaded, behind Python's back."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        if number == signal.SIGHUP or signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


@pytest.fixture(autouse=True)
def room_for_programs():
    """Linux gives a process 65,530 memory maps. Compiled programs use them up, and where there are
    no more, the compiler crashes. Counting them takes a while: only now and then."""
    yield
    maps = Path("/proc/self/maps")
    if next(FINISHED) % 16 == 0 and maps.exists() and maps.read_bytes().count(b"\n") > 45_000:
        jax.clear_caches()


@pytest.fixture(params=_PRESETS)
def preset(request) -> Config:
    """Every preset, shrunk, in float32 (tolerances must not hide a leak)."""
    config = shrink(presets()[request.param])
    return dataclasses.replace(
        config, execution=dataclasses.replace(config.execution, compute_dtype="float32")
    )


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> str:
    """A prepared corpus of a few hundred documents of words."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "text").mkdir()
    for i in range(300):
        (folder / "text" / f"{i:03}.txt").write_bytes(words(i, 40 + 7 * i))
    units = find_units([str(folder / "text")], "text", None)
    prepare(units, folder / "shards", ByteTokenizer(), heldout=0.1, processes=1)
    return str(folder / "shards")


@pytest.fixture(scope="session")
def tiny(corpus) -> Config:
    """A run of seconds."""
    return Config(
        model=ModelConfig(width=32, layers=2, heads=2),
        data=DataConfig(source=corpus, length=64, batch_size=8),
        optimizer=OptimizerConfig(warmup_steps=4),
        train=TrainConfig(steps=30, checkpoint_every=10, evaluation_bytes=2000, sample_bytes=20),
    )


@pytest.fixture(scope="session")
def trained(tiny, tmp_path_factory):
    """A finished run of seconds, and what it printed."""
    workdir = tmp_path_factory.mktemp("trained")
    done = run("train.py", "flat", *arguments_of(tiny, workdir))
    assert done.returncode == 0, done.stderr
    return workdir, done.stdout


@pytest.fixture
def small_disk(tmp_path):
    """A file system of a few megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="session")
def planned(corpus, tmp_path_factory) -> tuple[Study, Place, Planned]:
    """What was asked, of two arms, and its plan."""
    study = asked(
        f"flat=flat {TINY}", f"stride=megabyte {TINY} --model.stages.0.width 32 "
        "--model.stages.0.heads 2", steps=None, flops="4e9,12e9", seeds=2, data=(corpus,),
        heldout_bytes=3000,
    )  # fmt: skip
    place = Place(str(tmp_path_factory.mktemp("study")))
    return study, place, plan(study, place)[0]


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> Path:
    """A finished study, by its files alone; not to be changed."""
    out = tmp_path_factory.mktemp("studies") / "whole"
    write_study(out, ARMS, **SHAPE)
    return out


@pytest.fixture
def study(whole, tmp_path) -> Path:
    """A copy, to be spoilt."""
    return Path(shutil.copytree(whole, tmp_path / "study"))


@pytest.fixture(scope="session")
def browser():
    """Chromium, driven by selenium."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("no chromium and chromedriver here")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
                 "--disable-background-networking", "--disable-component-update", "--disable-sync",
                 "--disable-dev-shm-usage", "--window-size=1200,800"):  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield opened
    opened.quit()
