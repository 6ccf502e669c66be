"""Bad input: exit code 2 and one line on stderr that names key, bound and value, with nothing stored or changed."""

import shutil

import pytest
from command import OWN, here, state

from harness.problem import cifar, fashion_mnist

CASES = [
    # what is given, and what the line must say
    ("model=test_resnett", ["model", "'test_resnett'", "test_resnet"]),
    ("method=[base,cmd_onlin]", ["method", "'cmd_onlin'", "cmd_online"]),
    ("dataset=digit", ["dataset", "'digit'", "digits"]),
    ("optimizer=sgd_momentun", ["optimizer", "'sgd_momentun'", "sgd_momentum"]),
    ("suite=smok", ["suite", "'smok'", "smoke"]),
    ("tracker=wand", ["tracker", "'wand'", "wandb"]),
    ("epoch=3", ["'epoch'", "epochs"]),
    ("evaluate.evry=2", ["'evaluate.evry'", "evaluate.every"]),
    ("method.cmd_online.mode=3", ["method.cmd_online.mode", "modes"]),
    ("+method.cmd_online.mode=3", ["method.cmd_online", "'mode'", "modes"]),
    ("+optimizer.sgd_momentum.beta=3", ["optimizer.sgd_momentum", "'beta'"]),
    ("method.cmd_online.modes=0", ["method.cmd_online.modes", "at least 1", "got 0"]),
    ("method.cmd_online.samples=4611686018427387904", ["method.cmd_online.samples", "at most 50000"]),
    ("method.swa.control=nonsense", ["method.swa.control", "no method named 'nonsense'"]),
    ("method.lookahead.k=4611686018427387904", ["method.lookahead.k", "at most 1000000"]),
    ("method.cmd_online.modes=501", ["method.cmd_online.modes", "500", "501"]),
    ("method.cmd_posthoc.modes=501", ["method.cmd_posthoc.modes", "500", "501"]),
    ("method.cmd_online.warmup=6", ["method.cmd_online.warmup", "6"]),
    ("method.lawa.k=0", ["method.lawa.k", "at least 1", "got 0"]),
    ("method.lawa.k=many", ["method.lawa.k", "'many'"]),
    ("method.base.batchnorm=averaged", ["method.base.batchnorm", "averaged"]),
    ("method.swa.batchnorm=guess", ["method.swa.batchnorm", "recalibrate", "guess"]),
    ("model=test_vit", ["model.test_vit", "8x8", "patch_size"]),
    ("seeds=[]", ["seeds", "at least 1", "[]"]),
    ("seeds=[0,0]", ["seeds", "different", "[0, 0]"]),
    ("seeds=[-1]", ["seeds", "at least 0", "-1"]),
    ("seeds=3", ["seeds", "list", "got 3"]),
    ("seeds=[zero]", ["seeds", "whole", "zero"]),
    ("epochs=0", ["epochs", "at least 1", "got 0"]),
    ("epochs=abc", ["epochs", "whole number", "'abc'"]),
    ("epochs=2.5", ["epochs", "whole number", "2.5"]),
    ("epochs=null", ["epochs", "whole number", "None"]),
    ("batch_size=0", ["batch_size", "at least 1", "got 0"]),
    ("batch_size=1", ["batch_size", "at least 2", "test_resnet", "8x8", "got 1"]),
    ("evaluate.recalibrate_images=1", ["evaluate.recalibrate_images", "at least 2", "got 1"]),
    ("batch_size=5000", ["batch_size", "at most 1200", "5000"]),
    ("batches_per_epoch=0", ["batches_per_epoch", "at least 1", "got 0"]),
    ("precision=float16", ["precision", "bfloat16", "'float16'"]),
    ("device=tpu", ["device", "cpu", "tpu"]),
    ("compile=maybe", ["compile", "true or false", "'maybe'"]),
    ("fast=3", ["fast", "true or false", "3"]),
    ("save=all", ["save", "final", "'all'"]),
    ("redo=swaa", ["redo", "failed", "'swaa'"]),
    ("trajectory.keep=some", ["trajectory.keep", "warmup", "'some'"]),
    ("tracker.mode=loud", ["tracker.mode", "offline", "'loud'"]),
    ("engine.workers=0", ["engine.workers", "at least 1", "got 0"]),
    ("engine.per_device=0", ["engine.per_device", "at least 1", "got 0"]),
    ("model.test_resnet.head_classes=9", ["model.test_resnet.head_classes", "at least 10", "got 9"]),
    ("model.test_resnet.in_chans=3", ["model.test_resnet.in_chans", "must be 1", "digits", "got 3"]),
    ("model=lenet5", ["model.lenet5", "8x8", "resize"]),
    ("dataset.digits.crop_scale=0.5", ["dataset.digits.crop_scale", "in memory", "0.5"]),
    ("engine=kubernetes", ["engine", "'kubernetes'", "local"]),
    ("engine.retries=-1", ["engine.retries", "at least 0", "-1"]),
    ("engine.partition=gpu", ["engine.partition"]),
    ("engine.threads=0", ["engine.threads", "at least 1", "got 0"]),
    ("evaluate.every=0", ["evaluate.every", "at least 1", "got 0"]),
    ("evaluate.test=never", ["evaluate.test", "last", "'never'"]),
    ("optimizer.sgd_momentum.lr=-1", ["optimizer.sgd_momentum.lr", "-1"]),
    ("optimizer.sgd_momentum.lr=fast", ["optimizer.sgd_momentum.lr", "'fast'"]),
    ("dataset.digits.val_size=5000", ["dataset.digits.val_size", "at most", "5000"]),
    ("dataset.digits.source=imagenet", ["dataset.digits.source", "'imagenet'"]),
    ("dataset.digits=3", ["dataset.digits", "3"]),
    ("method.swa=null", ["method.swa", "None"]),
    ("evaluate=3", ["evaluate", "3"]),
    ("trajectory=all", ["trajectory", "all"]),
    ("tracker.tags=mine", ["tracker.tags", "mine"]),
    ("tracker.tags=['']", ["tracker.tags[0]", "at least 1 character"]),
    ("tracker.project=team/project", ["tracker.project", "without / ", "'team/project'"]),
    ("tracker.entity=my#team", ["tracker.entity", "128 characters", "'my#team'"]),
    ("bases=3", ["bases", "3"]),
    ("bases=[{model: test_resnet, optimizer: adam}]", ["bases", "optimizer", "'adam'"]),
    ("model=a,b", ["model", "list", "a,b"]),
    ("seeds=0,1", ["seeds", "list", "0,1"]),
    ("-m", ["-m", "list"]),
    ("--multirun", ["--multirun", "list"]),
    ("hydra.sweeper=basic", ["hydra.sweeper", "list"]),
    ("--verbose", ["--verbose"]),
    ("quick", ["quick", "key=value"]),
    ("--config-dir=nowhere", ["--config-dir", "nowhere"]),
]


@pytest.fixture
def untouched(smoke):
    """A results folder in which nothing may change."""
    before = state(smoke.results)
    yield smoke.results
    assert state(smoke.results) == before


def refused(*arguments, results, words):
    """The command ends with exit code 2, nothing on stdout, and one line that holds `words`."""
    done = here("run", *arguments, results=results, code=2)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line, line
    return line


@pytest.mark.parametrize(("given", "words"), CASES, ids=[given for given, _ in CASES])
def test_bad_input_is_one_line(untouched, given, words):
    refused("suite=smoke", given, results=untouched, words=words)


METHOD_CASES = [
    # a method that smoke has not, what is given for it, and what the line must say
    ("p_sgd", "dimensions=5", ["method.p_sgd.dimensions", "warmup = 4", "got 5"]),
    ("p_sgd", "dimensions=0", ["method.p_sgd.dimensions", "at least 1", "got 0"]),
    ("p_sgd", "warmup=6", ["method.p_sgd.warmup", "epochs - 1 = 5", "got 6"]),
    ("p_sgd", "start=middle", ["method.p_sgd.start", "initial, warmup_end", "'middle'"]),
    ("p_sgd", "milestones=[2,1]", ["method.p_sgd.milestones", "increase", "[2, 1]"]),
    ("p_bfgs_equal", "warmup=7", ["method.p_bfgs_equal.warmup", "epochs = 6", "got 7"]),
    ("p_bfgs_equal", "rho=1", ["method.p_bfgs_equal.rho", "below 1", "got 1"]),
    ("p_bfgs_equal", "sigma=0", ["method.p_bfgs_equal.sigma", "above 0", "got 0"]),
    ("p_bfgs_equal", "tries=0", ["method.p_bfgs_equal.tries", "at least 1", "got 0"]),
    ("p_bfgs_equal", "batch_size=2000", ["method.p_bfgs_equal.batch_size", "at most 1200", "got 2000"]),
    ("twa", "tail=0.1", ["method.twa.tail", "at least 2 of 6 snapshots", "got 0.1"]),
    ("twa", "momentum=1", ["method.twa.momentum", "below 1", "got 1"]),
    ("twa", "start=0.1", ["method.twa.tail", "at most the 1 snapshots up to start", "got 0.3333"]),
    ("cooldown", "decay=0.05", ["method.cooldown.decay", "at least 1 of 6 epochs", "got 0.05"]),
    ("pca2", "rank=6", ["method.pca2.rank", "at most epochs - 1 = 5", "got 6"]),
    ("persistence", "warmup=6", ["method.persistence.warmup", "below epochs = 6", "got 6"]),
]
FITTING = {
    "p_sgd": ["warmup=4", "dimensions=3"],
    "p_bfgs_equal": ["warmup=4", "dimensions=3", "batch_size=200"],
    "twa": [],
    "cooldown": [],
    "pca2": [],
    "persistence": [],
}
"""values with which each fits the six epochs and 1200 images of smoke"""


@pytest.mark.parametrize(("method", "given", "words"), METHOD_CASES)
def test_bad_input_of_other_methods(untouched, method, given, words):
    values = [f"method.{method}.{value}" for value in (*FITTING[method], given)]
    refused("suite=smoke", f"method=[base,{method}]", *values, results=untouched, words=words)


def test_a_nearest_name_stands_once(untouched):
    line = refused("model=tset_resnet", results=untouched, words=["'tset_resnet'"])
    assert line.count("test_resnet") == 1


def test_results_folder_that_is_a_file(tmp_path):
    results = tmp_path / "results"
    results.write_text("something of mine")
    refused("suite=smoke", results=results, words=["results_dir", str(results), "folder"])
    refused("suite=smoke", results=results / "below", words=["results_dir", str(results), "folder"])
    assert results.read_text() == "something of mine"


def test_too_little_disk(tmp_path, monkeypatch):
    """Two bases of 7 snapshots of at least 0.3 M float32 weights do not fit 1 MB."""
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    results = tmp_path / "results"
    refused("suite=smoke", results=results, words=["results_dir", "MB free", "got 1 MB", str(results)])
    assert not results.exists()


def test_absent_data(tmp_path, monkeypatch):
    def refuse(folder):
        raise OSError("no way")

    monkeypatch.setattr(fashion_mnist, "FETCHERS", (("one way", refuse), ("another", refuse)))
    monkeypatch.setattr(fashion_mnist, "SYSTEM_FOLDER", tmp_path / "system")
    results, root = tmp_path / "results", tmp_path / "data"
    words = ["dataset.fashion_mnist", str(root), str(tmp_path / "system"), "one way (no way)", "another (no way)"]
    root_key = f"dataset.fashion_mnist.root={root}"
    refused("suite=quick", root_key, results=results, words=[*words, "dataset=digits"])
    assert not results.exists()
    # a plan needs no image
    assert "not here yet" in here("plan", "suite=quick", root_key, results=results).stdout


def test_absent_cifar(tmp_path, monkeypatch):
    def refuse(folder):
        raise OSError("no way")

    monkeypatch.setattr(cifar, "FETCH", {10: refuse, 100: refuse})
    results, root = tmp_path / "results", tmp_path / "data"
    root_key = f"dataset.cifar10.root={root}"
    words = ["dataset.cifar10", str(root), "no way", "cifar-10-batches-bin", "cifar-10-batches-py", cifar.HOME]
    refused("suite=paper", "model=lenet5", root_key, results=results, words=words)
    assert not results.exists()
    planned = here("plan", "suite=paper", "model=lenet5", root_key, "--details", results=results).stdout
    assert "dataset cifar10 is not here yet" in planned
    for word in ("work: ", "on this machine", "measured here", "of disk at most", "memory of the largest job"):
        assert word in planned


def test_pretrained_weights_that_do_not_load(tmp_path):
    """Refused before anything trains, not recorded as a failed cell of every base."""
    results, weights = tmp_path / "results", tmp_path / "weights.safetensors"
    weights.write_bytes(b"nothing")
    given = ("model=test_resnet", "dataset=digits", "method=base", f"model.test_resnet.pretrained={weights}")
    refused(*given, results=results, words=["model.test_resnet.pretrained", "weights that load", str(weights)])
    assert not results.exists()


def test_an_image_folder_without_images(tmp_path):
    root = tmp_path / "images"
    results = tmp_path / "results"
    given = ("dataset=image_folder", f"dataset.image_folder.root={root}", "dataset.image_folder.classes=2")
    refused(*given, results=results, words=["dataset.image_folder.root", "train/<class>/", str(root)])
    for name in ("ant", "bee"):
        (root / "train" / name).mkdir(parents=True)
    refused(*given, results=results, words=["dataset.image_folder.root", "got none in", str(root / "train")])


def test_cuda_asked_for_and_absent(untouched, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    refused("suite=smoke", "device=cuda", results=untouched, words=["device", "cpu or auto", "got cuda"])


def test_a_project_of_the_environment_that_is_none(tmp_path):
    """Refused before anything trains: W&B would refuse every run."""
    variables = {"WANDB_PROJECT": "team/project"}
    done = here("run", "suite=smoke", results=tmp_path / "results", code=2, variables=variables)
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: WANDB_PROJECT must be text of at most 128 characters")
    assert not (tmp_path / "results").exists()


def test_entries_with_values_that_are_none(untouched, tmp_path):
    """Values for a preset stand below its one name; below `fast`, what an entry may hold and no more."""
    (tmp_path / "suite").mkdir()
    for name, entry in {
        "two": "{model: test_resnet, optimizer: {adam: {lr: 1}, sgd: {lr: 1}}}",
        "bare": "{model: {test_resnet: 3}}",
        "later": "{model: test_resnet, fast: {evaluate: {every: 2}}}",
        "typo": "{model: test_resnet, dataset: {each: {resise: 9}}}",
    }.items():
        (tmp_path / f"suite/{name}.yaml").write_text(f"# @package _global_\nbases:\n  - {entry}\n")
    own = f"--config-dir={tmp_path}"
    refused(own, "suite=two", results=untouched, words=["bases[0].optimizer", "one name", "'sgd'"])
    refused(own, "suite=bare", results=untouched, words=["bases[0].model", "mapping of values", "3"])
    refused(own, "suite=later", results=untouched, words=["bases[0].fast", "'evaluate'"])
    refused(own, "suite=typo", results=untouched, words=["dataset.digits", "'resise'", "resize"])


def test_a_target_outside_the_allowed_packages(untouched, tmp_path):
    (tmp_path / "method").mkdir()
    (tmp_path / "method/sly.yaml").write_text("sly:\n  _target_: subprocess.Popen\n")
    refused(
        f"--config-dir={tmp_path}", "method=[base,sly]", results=untouched, words=["method.sly._target_", "subprocess"]
    )


def test_bad_presets_of_ones_own(untouched, tmp_path):
    """A module that is not there, a class that is no method, a suite entry with a key that no entry has."""
    (tmp_path / "method").mkdir()
    (tmp_path / "suite").mkdir()
    (tmp_path / "method/gone.yaml").write_text("gone:\n  _target_: nowhere_to_be_found.Method\n")
    (tmp_path / "method/odd.yaml").write_text("odd:\n  _target_: baselines.ema.math\n")
    (tmp_path / "suite/wrong.yaml").write_text("# @package _global_\nbases:\n  - {model: test_resnet, epoch: 3}\n")
    (tmp_path / "suite/flat.yaml").write_text("# @package _global_\nbases: [test_resnet]\n")
    own = f"--config-dir={tmp_path}"
    refused(own, "method=[base,gone]", results=untouched, words=["method.gone._target_", "nowhere_to_be_found"])
    refused(own, "method=[base,odd]", results=untouched, words=["method.odd._target_", "class"])
    refused(own, "suite=flat", results=untouched, words=["bases[0]", "a mapping", "test_resnet"])
    refused(own, "suite=wrong", results=untouched, words=["bases[0]", "'epoch'", "epochs"])


def test_a_preset_of_ones_own_is_called_as_its_file_and_as_no_other(untouched, tmp_path):
    """Of two with one name the other would be taken, in silence."""
    (tmp_path / "method").mkdir()
    (tmp_path / "method/mine.yaml").write_text("swa:\n  _target_: baselines.swa.SWA\n")
    own = f"--config-dir={tmp_path}"
    refused(own, "method=[base,mine]", results=untouched, words=["method:", "mine.yaml", "the key mine", "got swa"])
    (tmp_path / "method/mine.yaml").rename(tmp_path / "method/swa.yaml")
    refused(own, "method=[base,swa]", results=untouched, words=["method:", "'swa'", "another name", "the project"])


def test_a_class_of_ones_own_that_is_not_whole(untouched, tmp_path):
    (tmp_path / "method").mkdir()
    (tmp_path / "method/half.yaml").write_text("half:\n  _target_: half_a_method.Half\n")
    (tmp_path / "half_a_method.py").write_text(
        "from harness.method import Branch, Brancher\n\n\nclass Half(Brancher):\n"
        "    def branch(self, epochs):\n        return Branch(epochs, epochs, 0)\n"
        "    def begin(self, session): ...\n    def train_epoch(self, session): ...\n"
    )
    own = f"--config-dir={tmp_path}"
    words = ["method.half._target_", "load_state_dict and state_dict"]
    refused(own, "method=[base,half]", results=untouched, words=words)
    whole = (tmp_path / "half_a_method.py").read_text() + (
        "    def state_dict(self): ...\n    def load_state_dict(self, state): ...\n"
    )
    (tmp_path / "whole_method.py").write_text(whole)
    (tmp_path / "method/half.yaml").write_text("half:\n  _target_: whole_method.Half\n")
    words = ["method.half: a branch must train at least 1 epoch, got 0, on a base of 6 epochs"]
    refused(own, "suite=smoke", "epochs=6", "method=[base,half]", results=untouched, words=words)


def test_report_of_a_suite_that_never_ran(smoke, tmp_path):
    for arguments, results in ((["suite=smoek"], smoke.results), (["epochs=3"], smoke.results), ([], tmp_path / "no")):
        done = here("report", *arguments, results=results, code=2)
        assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("budget", ["0", "half"])
def test_report_on_an_impossible_budget(budget, smoke):
    done = here("report", "suite=smoke", f"tables.budget={budget}", results=smoke.results, code=2)
    assert done.stderr == f"error: tables.budget must be base or at least 1 gradient evaluation, got {budget!r}\n"


def test_no_verb_and_an_unknown_verb(tmp_path):
    for words in ([], ["train"]):
        done = here(*words, results=tmp_path / "results", code=2)
        assert len(done.stderr.splitlines()) == 1


def test_own_presets_do_not_leak_into_the_next_command(untouched):
    """A method found through --config-dir is unknown without it."""
    assert "last_weights" in here("plan", f"--config-dir={OWN}", "method=last_weights", results=untouched).stdout
    refused("method=last_weights", results=untouched, words=["method", "'last_weights'"])


def test_arguments_after_an_option_count_too(untouched):
    """key=value may stand on both sides of --config-dir."""
    planned = here(
        "plan", "dataset=digits", f"--config-dir={OWN}", "method=last_weights", "epochs=5", results=untouched
    )
    assert "methods: base_recalibrated, last_weights" in planned.stdout
    assert "epochs to train: 5 of bases" in planned.stdout
