"""What the command says of itself: its verbs, what they take, examples, and the terms it uses."""

from __future__ import annotations

DESCRIPTION = """\
Benchmark of methods that model or exploit the training dynamics of neural networks.

Every base (model, dataset, optimizer, seed) is trained once; methods watch it, replay
it or branch from it. Results are kept in a folder and never computed twice."""

OVERRIDES = """\
what to run, as key=value pairs:
  suite=quick                      a stated collection of everything below
  model=resnet18                   a preset, any timm name, a list [a,b], or all
  dataset=, optimizer=, method=    likewise
  federation=iid_10                clients that train every base in rounds; likewise
  seeds=[0,1,2] epochs=30          any key of conf/config.yaml
  method.cmd_online.modes=20       a value of one preset
  fast=true                        the smallest version of anything, to try it out
  results_dir=results              where results are kept and found again
  name=mine                        of the view, suites/mine/; otherwise the suite's, or what was run
"""

TRACKER_OVERRIDES = """\
what and where, as key=value pairs:
  name=quick results_dir=results   a view (suite=quick is the same), otherwise the latest; and where its results are
  tracker=wandb                    wandb or csv
  tracker.mode=online              auto, online or offline
  tracker.project=, .entity=, .base_url=, .tags=, .notes=, .artifacts=none|tables|models|all
"""

ADOPT = """\
a name, and which checkpoints, as key=value pairs:
  from=runs/                       a folder, a pattern, a file, a CSV (path, step, epoch, metrics), or a list of these;
                                   {seed} stands for each of the seeds
  seeds=[0,1,2]                    of several runs
  entry=ema                        auto | raw | ema, or a dotted key of what a checkpoint holds
  steps=0:10000:500                first:last:every, of those found
  initial=FILE                     a checkpoint of w(0)
  weights=[*.bias] buffers=[*.ema] patterns of names that decide where names do not tell weights from buffers
  keep=hardlink                    link | hardlink | copy: read them where they are, survive their removal, copy them
  model=resnet18 dataset=cifar10   a classifier that is known here, which run then evaluates itself
  results_dir=results              where the run is registered
"""

ANALYSE = """\
a name that was adopted, and how, as key=value pairs:
  modes=10 samples=1000            of post-hoc CMD
  figures=none                     all | none: tables and page alone
  results_dir=results              where the run is registered
"""

GIVE = """\
a name that was adopted, and which weights of it, as key=value pairs:
  method=cmd_posthoc               a method that follows snapshots; method.cmd_posthoc.modes=20 sets a value of it
  to=out/                          a new file or folder; ending with a slash, a new folder with a file in it
  t=5                              after which snapshot; otherwise the last
  seed=0                           of which run, where several were adopted
  dtype=float32                    source | float32: the checkpoint's own type, or all digits
  results_dir=results              where the run is registered
"""

REPORT = """\
what to report on, as key=value pairs:
  name=quick                       a view, finished or not (suite=quick is the same); otherwise the latest
  results_dir=results              where its results are
  tables.columns=[base,swa,n]      methods and columns to show; of the default tables all
  tables.metric=test_accuracy      test_accuracy | test_loss | val_accuracy | val_loss: what is compared
  tables.target=85                 validation accuracy to reach; of itself what the recalibrated base ends with
  tables.budget=base               also compare on one budget of gradients: base, or a number
  compare=published                also compare with published, another results folder, or a CSV of means
  figures=none                     all | none: tables and page alone
  figures.width=column             column | text: every figure 3.25 or 6.75 inches wide, all text 7 points at that width
  figures.title=false              figures without titles, for a paper that has them in captions
  figures.landscape=21             also the loss over a plane of each model, on so many points a side; resumable
"""

TERMS = {
    "base": "a training run: one model, dataset, optimizer and seed; trained once, shared by all methods",
    "cell": "one method on one base: what has a record, a row of a table, and is never computed twice",
    "observer": "a method that watches a base as it trains, after every epoch or every few optimizer steps",
    "reconstruction": "a method that reads the recorded weights of the whole run afterwards; no training method",
    "branch": "training of a method's own that leaves a base at some epoch and goes on differently",
    "federation, exchange": "clients that train a base in rounds, and a branch that says what passes between them",
    "replay": "observers and reconstructions run on a base's stored snapshots, without training",
    "shadow run": "a base trained again, to the same weights, for a new cell that its stored snapshots cannot serve",
    "recalibrated": "BatchNorm statistics taken anew on training images, as weights that were not trained need",
    "control": "the method that lacks what another one claims to add; presets name theirs",
    "primary comparison": "a method and a control named before a suite runs; these alone are tested",
    "annealed": "a learning rate that falls to a tenth or less by the end of the run; a constant one stays",
    "view": "what was asked for in one go: a table, figures and a page over cells, below suites/ in the results",
    "key": "20 hex digits of a base or cell: a digest of settings, data and sources, all that determines its numbers",
    "record": "the file that says how a cell ended and with what numbers; all else can be rebuilt from it",
    "snapshot": "the weights after an epoch; all snapshots of a run are its trajectory",
    "restart state": "weights, optimizer and random streams: what training needs to go on exactly",
    "stale": "a cell by other sources of the harness, or whose base got other weights since; redo=stale makes it anew",
    "failed": "a cell that ended with an error, named with its line of code and log; redo=failed runs it again",
    "diverged": "a cell that ended with a loss or weights that are not finite",
    "skipped": "a cell that did not run, as its base ended before the epoch that it needs; redo=failed runs it again",
    "left": "a cell that has yet to run",
}
"""words of the command and its tables, each in a line"""

EXAMPLES = {
    "plan": "traindyn plan suite=quick\n  traindyn plan suite=quick --details",
    "run": "traindyn run suite=quick\n  traindyn run model=resnet10t dataset=digits method=[base,cmd_online]",
    "tune": "traindyn tune method=cmd_online suite=quick trials=50\n"
    "  traindyn tune suite=quick trials=10 && traindyn run suite=quick tuned=true",
    "list": "traindyn list methods\n  traindyn list views results_dir=results",
    "show": "traindyn show suite=quick seeds=[0]\n"
    "  traindyn show suite=quick seeds=[0] > mine/suite/mine.yaml && traindyn run --config-dir mine suite=mine",
    "adopt": "traindyn adopt gpt2 from='runs/checkpoint-*'\n"
    "  traindyn adopt resnet from='runs/s{seed}/*.ckpt' seeds=[0,1,2] initial=runs/s0/init.ckpt",
    "analyse": "traindyn analyse gpt2\n  traindyn analyse gpt2 modes=20 figures=none",
    "give": "traindyn give gpt2 method=cmd_posthoc to=out/\n"
    "  traindyn give gpt2 method=swa method.swa.start=0.5 dtype=float32 to=swa.safetensors",
    "report": "traindyn report suite=quick\n  traindyn report suite=quick tables.columns=[base,swa,cmd_online] --open",
    "publish": "traindyn publish suite=quick\n  traindyn publish suite=quick tracker=csv\n"
    "  traindyn publish suite=quick tracker.mode=online tracker.project=mine tracker.artifacts=all",
    "sync": "traindyn sync\n  traindyn sync results_dir=results tracker.entity=my-team",
    "doctor": "traindyn doctor\n  traindyn doctor results_dir=results repair=true free=true",
    "merge": "traindyn merge from=/mnt/other/results results_dir=results",
}
SUMMARIES = {
    "list": "say what there is to choose from, one line each: methods, models, data, optimizers, suites, views, terms",
    "show": "print the resolved configuration as YAML, a suite of your own to give back",
    "plan": "say how long it will take, which bases and cells are done, and what is left",
    "run": "do what is left of a plan, and print the table",
    "adopt": "make checkpoints of your own training a base, read where they lie and never written to",
    "analyse": "show how the weights of an adopted run moved, without its model's code: figures, tables, page",
    "give": "write a method's weights on an adopted run as a checkpoint in the format that came in",
    "tune": "search the parameters of methods by validation data, the same budget for each",
    "report": "rebuild a view's frame, tables, figures and page from the records, and print the table",
    "publish": "give a tracker (W&B, or tracker=csv) what it lacks of a view, from the records",
    "sync": "send the W&B runs that were kept offline, and say what is where",
    "doctor": "check packages, devices and a results folder, and set it right on request",
    "merge": "take over what another results folder has and this one lacks",
}
DOCTOR = """\
what to examine, as key=value pairs:
  results_dir=results              the folder
  repair=true                      set damaged files aside, to be made anew, and drop what killed processes left
  free=true                        drop snapshots, states and files set aside that no plan keeps
"""

LISTED = ("methods", "models", "data", "optimizers", "federations", "suites", "views", "engines", "trackers", "terms")
LIST = """\
what to list: methods, models, data, optimizers, federations, suites, views, engines, trackers or terms; nothing: all
  results_dir=results              where views are looked for
"""

MERGE = """\
what to merge, as key=value pairs:
  from=DIR                         the other results folder; it is only read
  results_dir=results              the folder that takes over
"""

NO_CONFIGURATION = {
    "list": LIST,
    "adopt": ADOPT,
    "analyse": ANALYSE,
    "give": GIVE,
    "report": REPORT,
    "publish": TRACKER_OVERRIDES,
    "sync": TRACKER_OVERRIDES,
    "doctor": DOCTOR,
    "merge": MERGE,
}
"""verbs that resolve no configuration, and what they take"""

GLOSSARY = "words:\n" + "\n".join(f"  {term:<20}{text}" for term, text in TERMS.items())
