"""README.md: what one reads to the end, in its order, with the numbers that were published last."""

import re
import sys

import pytest
from pages import DOCS, ROOT

sys.path.insert(0, str(DOCS / "tools"))

import pictures
import results_tables as published

README = (ROOT / "README.md").read_text()
SECTIONS = [
    "Two commands", "What you see", "CMD in one formula", "Results", "CMD in your own loop", "Add a method",
    "How it works", "Scale out", "Documentation",
]  # fmt: skip


def test_it_is_short_and_in_order():
    assert len(README.splitlines()) <= 150
    assert re.findall(r"^## (.*)$", README, flags=re.MULTILINE) == SECTIONS
    assert README.index("<picture>") < README.index("## Two commands")


def test_its_links_lead_somewhere():
    places = [*re.findall(r"\]\(([^)]+)\)", README), *re.findall(r'(?:src|srcset)="([^"]+)"', README)]
    for place in places:
        assert place.startswith("https://") or (ROOT / place).exists(), place
    assert {place for place in places if place.startswith("http")} == {"https://arxiv.org/abs/2312.13247"}


def test_its_table_is_of_the_published_results():
    table = published.readme_table()
    assert len(table.splitlines()) <= 12
    assert table in README


def decided(suite):
    """Verdicts that are not undecided, of primary comparisons."""
    found = published.comparisons(suite)
    found = found[(found["family"] == "primary") & (found["verdict"] != "undecided")]
    return [(line["method"], line["model"], line["optimizer"], line["verdict"]) for _, line in found.iterrows()]


QUICK = {
    "constant": ("test_resnet", "fashion_mnist", "sgd_momentum"),
    "cosine": ("test_resnet", "fashion_mnist", "sgd_momentum_cosine"),
    "vit": ("test_vit", "fashion_mnist", "adam"),
    "vit cosine": ("test_vit", "fashion_mnist", "adam_cosine"),
}


def mean(method, row, control="base_recalibrated", suite="quick"):
    return published.difference(suite, row, method, control)["mean"]


def annealed_losses(suite):
    """How far CMD's four means lie below plain training at annealed rates, least and most."""
    losses = [
        -mean(method, QUICK[row], suite=suite)
        for method in ("cmd_online", "cmd_posthoc")
        for row in ("cosine", "vit cosine")
    ]
    assert min(losses) > 0
    return min(losses), max(losses)


def says_better(suite):
    """The words on post-hoc CMD on the ResNet at a constant rate, where components and a decay gain as much."""
    line = published.difference(suite, QUICK["constant"], "cmd_posthoc")
    for method in ("pca2", "cooldown"):
        assert mean(method, QUICK["constant"], suite=suite) > line["mean"] - 0.05
    return f"{published.signed(line['mean'])}, 95 % interval {published.interval(line)}"


def test_its_sentences_are_of_the_published_results():
    text = " ".join(README.split())
    assert decided("all") == DECIDED_IN_ALL
    assert (published.comparisons("all")["family"] == "primary").sum() == 8
    assert says_better("all") in text
    assert "CMD loses {:.1f} to {:.1f}".format(*annealed_losses("all")) in text
    most = max(mean(method, QUICK[row], suite="all") for method in AVERAGES for row in ("cosine", "vit cosine"))
    assert f"twelve averages gain {most:.2f} points at most" in text
    assert f"ten of {published.summary('all')['method'].nunique()} methods" in text


DECIDED_IN_ALL = [
    ("cmd_posthoc", "test_resnet", "sgd_momentum", "better"),
    ("cmd_online", "test_resnet", "sgd_momentum_cosine", "worse"),
]


def test_what_is_said_of_every_method_is_as_published():
    text = " ".join((DOCS / "results.md").read_text().split())

    def over(methods, rows=QUICK, control="base_recalibrated"):
        found = [mean(method, QUICK[row], control, "all") for method in methods for row in rows]
        return min(found), max(found)

    assert len(AVERAGES) == 12
    assert "gain {:.1f} to {:.1f} points on the ResNet".format(*over(AVERAGES, ["constant"])) in text
    assert "and {:.1f} to {:.1f} on the ViT".format(*over(AVERAGES, ["vit"])) in text
    for row in ("constant", "vit"):
        assert over(AVERAGES, [row])[0] < mean("cmd_posthoc", QUICK[row], suite="all") < over(AVERAGES, [row])[1] + 0.05
        assert over(["epoch_ema", "ema_long", "time_mean"], [row])[1] < over(AVERAGES, [row])[0]
    assert f"the best of the twelve gains {over(AVERAGES, ['cosine', 'vit cosine'])[1]:.2f} points" in text
    means = {method: value for (row, method), (value, _) in published.means("all").items() if row == QUICK["constant"]}
    assert max(means, key=means.get) == "pca2"
    references = over(["cmd_references_mean", "cmd_references_principal"], control="cmd_posthoc")
    assert "have {:+.2f} to {:+.2f} points beside post-hoc CMD".format(*references) in text
    constant = over(["cmd_references_all"], ["constant", "vit"], "cmd_posthoc")
    assert {f"{-value:.2f} less at constant rates" in text for value in constant} == {True}
    annealed = over(["cmd_references_all"], ["cosine", "vit cosine"], "cmd_posthoc")
    assert "and {:.2f} to {:.2f} more at annealed ones".format(*annealed) in text
    assert "has {:+.2f} to {:+.2f} points beside plain training".format(*over(["cmd_embedded"])) in text
    assert "timetable have {:+.2f} to {:+.2f}".format(*over(["frozen_random"])) in text
    most, least = over(["dmd"])
    assert f"loses {-least:.1f} to {-most:.1f} points" in text
    stays = over(["persistence"])
    assert f"as they were then {-stays[1]:.1f} to {-stays[0]:.1f}" in text
    means = {method: value for (row, method), (value, _) in published.means("all").items() if row == QUICK["vit"]}
    assert sorted(means, key=means.get)[-2:] == ["cooldown", "schedule_free"]
    best = published.difference("all", QUICK["vit"], "schedule_free")
    assert f"{published.signed(best['mean'])} ({published.interval(best)})" in text
    assert f"`cooldown` with {mean('cooldown', QUICK['vit'], suite='all'):+.2f}" in text
    twa = [published.difference("all", QUICK[row], "twa") for row in ("vit", "vit cosine")]
    assert "TWA has {:+.2f} and {:+.2f} points".format(*(line["mean"] for line in twa)) in text
    assert f"the highest mean ({published.interval(twa[1])})" in text
    means = {name: value for (row, name), (value, _) in published.means("all").items() if row == QUICK["vit cosine"]}
    assert max(means, key=means.get) == "twa"
    losses = [-value for method in ("p_sgd", "p_bfgs_equal") for value in reversed(over([method]))]
    assert "loses {:.1f} to {:.1f} points in all columns, BFGS there {:.1f} to {:.1f}".format(*losses) in text
    rates = published.pd.read_csv(published.PUBLISHED / "rates" / "subspaces.csv")
    found = rates.loc[rates.groupby(["optimizer", "method"])["val_loss"].idxmin(), "lr"]
    assert f"{found.min():.3f} to {found.max():.2f}, TWA" in text
    rivals = published.pd.read_csv(published.PUBLISHED / "all" / "rivals.csv")
    ahead = rivals[(rivals["metric"] == "test_accuracy") & (rivals["verdict"] == "ahead")]
    assert set(ahead[ahead["model"] == "test_vit"]["method"]) == {"schedule_free", "cooldown"}


def test_what_is_said_of_tuning_is_as_published():
    text = " ".join((DOCS / "results.md").read_text().split())
    cells = published.pd.read_csv(published.PUBLISHED / "tuned" / "accuracy.csv")
    settings = published.pd.read_csv(published.PUBLISHED / "tuned" / "settings.csv")
    assert set(settings["budget"]) == {"10 trials"}
    assert (len(settings), settings["beyond_seed_noise"].sum()) == (42, 14)
    assert "42 searches" in (tuning := (DOCS / "tuning.md").read_text())
    assert "In 14 the best of ten" in tuning
    tuned_on = settings["seeds"].map(lambda seeds: {int(seed) for seed in seeds.split()})
    assert not set(cells["seed"]) & set.union(*tuned_on)
    found = published.tuned("tuned").assign(searched=lambda table: table.index.isin(settings["method"], level="method"))
    rows = found.groupby(level=[0, 1, 2], sort=False)
    taus = [own[own["searched"]]["default"].corr(own[own["searched"]]["tuned"], method="kendall") for _, own in rows]
    assert "is {:.2f}, {:.2f}, {:.2f} and {:.2f} in the four columns".format(*taus) in text
    clock = found.xs("clock", level="method")
    assert (clock["tuned_rank"] == 1).sum() == 3

    def beside(method, control):
        wide = cells.pivot(index=[*published.ROW, "seed"], columns="method", values="tuned")
        gains = (wide[method] - wide[control]).groupby(level=[0, 1, 2], sort=False)
        return [(own.mean(), *published.interval_of(own.to_numpy())) for _, own in gains]

    _, *resnet = beside("clock", "base_recalibrated")[:2]
    assert "{:+.2f} ({:+.2f} to {:+.2f}) on the ResNet".format(*resnet[0]) in text
    vit = beside("clock", "base_recalibrated")[3]
    assert "{:+.2f} ({:+.2f} to {:+.2f}) on the ViT".format(*vit) in text
    annealed = [row for row in rows.groups if row[2].endswith("_cosine")]
    for row in annealed:
        own = found.loc[row]
        assert list(own[own["tuned"] > own.loc["base", "tuned"]].index) == ["clock"]
    assert all(mean > 0 for method in ("cmd_online", "cmd_posthoc") for mean, *_ in beside("clock", method))
    assert "Tuned, a straight line in the epoch comes before CMD." in README
    more = [mean for mean, *_ in beside("clock", "cmd_posthoc")]
    assert f"has {min(more):.2f} to {max(more):.2f} points more than tuned post-hoc CMD" in text
    loses = [-beside("cmd_posthoc", "base_recalibrated")[place][0] for place in (1, 3)]
    assert "loses {:.2f} and {:.2f} after annealing".format(*loses) in text
    control = [mean for mean, *_ in beside("cmd_online", "epoch_ema")]
    assert f"has {min(control):+.2f} to {max(control):+.2f} points beside the moving average" in text
    gains = found["gain"].groupby(level="method").max()
    assert gains[["ema", "cooldown", "cmd_posthoc", "cmd_mean_kernel"]].max() < 0.4
    forgetting = (
        settings[settings["method"] == "clock"]["parameters"].str.extract(r"forgetting=([\d.]+)")[0].astype(float)
    )
    assert f"by {forgetting.min():.2f} to {forgetting.max():.2f} per short epoch" in text


AVERAGES = (
    "ema_short", "ema", "power_ema", "posthoc_ema", "swa", "lawa", "lawa_steps_short", "lawa_steps", "two_tailed",
    "uniform_soup", "greedy_soup", "rna",
)  # fmt: skip
"""averages that look back over at most a third of the run, or choose how far"""


def test_the_page_of_results_says_what_was_published():
    text = " ".join((DOCS / "results.md").read_text().split())
    assert decided("quick") == [("cmd_posthoc", "test_resnet", "sgd_momentum", "better")]
    assert (published.comparisons("quick")["family"] == "primary").sum() == 8
    assert says_better("quick") in text
    assert "by {:.1f} to {:.1f} points. **What".format(*annealed_losses("quick")) in text
    modes = [mean("cmd_posthoc", row) - mean("cmd_mean_kernel", row) for row in QUICK.values()]
    assert f"by {min(modes):.1f} to {max(modes):.1f} points in every column" in text
    beside = [abs(mean("cmd_online", row) - mean("epoch_ema", row)) for row in QUICK.values()]
    assert f"within {min(beside):.1f} to {max(beside):.1f} points of a moving average" in text
    assert (
        f"rank 2 gain {mean('pca2', QUICK['constant']) - mean('cmd_posthoc', QUICK['constant']):.1f} points more"
        in text
    )
    less = [mean("cmd_posthoc", QUICK["constant"]) - mean(method, QUICK["constant"]) for method in ("ema", "clock")]
    assert {f"{value:.1f}" for value in less} == {"0.2"}
    assert "gain 0.2 less" in text
    assert decided("quick_more_seeds") == [
        ("cmd_online", "test_resnet", "sgd_momentum", "better"),
        ("cmd_posthoc", "test_resnet", "sgd_momentum", "better"),
        ("cmd_online", "test_resnet", "sgd_momentum_cosine", "worse"),
        ("cmd_posthoc", "test_vit", "adam_cosine", "worse"),
    ]
    assert sorted(decided("fashion_lenet5")) == [
        ("cmd_online", "lenet5", "adam_cosine", "worse"),
        ("cmd_posthoc", "lenet5", "adam", "better"),
        ("cmd_posthoc", "lenet5", "adam_cosine", "equivalent"),
    ]
    lenet = {row[2]: row for row in published.rows_of("fashion_lenet5")}
    means = published.means("fashion_lenet5")
    annealed = means[lenet["adam_cosine"], "base_recalibrated"][0]
    assert f"annealed run ({annealed:.2f})" in text
    assert f"{annealed - means[lenet['adam'], 'base_recalibrated'][0]:.2f} points more than the plain constant" in text
    highest = sorted(((value, name) for (row, name), (value, _) in means.items() if row == lenet["adam"]), reverse=True)
    assert [(name, round(value, 2)) for value, name in highest[:2]] == [("cooldown", 92.42), ("ema", 92.29)]
    assert "`cooldown` (92.42) and EMA (92.29)" in text
    rivals = published.pd.read_csv(published.PUBLISHED / "fashion_lenet5" / "rivals.csv")
    beside = rivals[(rivals["optimizer"] == "adam") & (rivals["metric"] == "test_accuracy")].set_index("method")
    assert "ahead" not in set(beside["verdict"])
    assert set(beside.loc[["cooldown", "ema"], "verdict"]) == {"close"}


def test_what_is_said_of_federations_is_as_published():
    text = " ".join((DOCS / "results.md").read_text().split())
    rows = [("lenet5", f"fashion_mnist-{name}", "sgd_momentum") for name in ("iid_10", "dirichlet_10")]
    assert decided("federated") == []
    assert (published.comparisons("federated")["family"] == "primary").sum() == 6
    pairs = {
        (method, control): [published.signed(mean(method, row, control, "federated")) for row in rows]
        for method, control in (("fed_cmd", "base"), ("fed_cmd", "apf"), ("fed_cmd", "fed_frozen_random"))
    }
    assert "has {} and {} points beside federated averaging".format(*pairs["fed_cmd", "base"]) in text
    assert "and {} and {} beside APF".format(*pairs["fed_cmd", "apf"]) in text
    behind = [value.lstrip("-") for value in pairs["fed_cmd", "fed_frozen_random"]]
    assert "have {} and {} points more than federated CMD".format(*behind) in text
    saved = {method: {round(published.communication("federated")[(*row, method)]) for row in rows} for method in SAVED}
    assert saved == {method: {percent} for method, percent in SAVED.items()}
    means = published.means("federated")
    for row in rows:
        assert abs(mean("fed_half", row, "base", "federated")) <= 0.1
        assert max((value, name) for (own, name), (value, _) in means.items() if own == row)[1] == "fedadam"


SAVED = {"fed_cmd": 25, "apf": 12, "fed_frozen_random": 26, "fed_half": 50, "fedadam": 0}


def test_the_motion_that_is_left_is_as_published():
    text = " ".join((DOCS / "results.md").read_text().split())
    found = {"post-hoc CMD": [], "DMD": [], "principal components": []}
    for suite in ("quick", "fashion_lenet5"):
        errors = published.pd.read_csv(published.PUBLISHED / suite / "errors.csv")
        for fit, shares in found.items():
            shares += errors.loc[(errors["fit"] == fit) & (errors["dimension"] == 10), "share"].tolist()
    assert len(found["DMD"]) == 6
    ends = {fit: (100 * min(shares), 100 * max(shares)) for fit, shares in found.items()}
    assert "CMD leaves {:.0f} to {:.0f} %".format(*ends["post-hoc CMD"]) in text
    assert "DMD {:.1f} to {:.0f} %".format(*ends["DMD"]) in text
    assert "below, {:.1f} to {:.1f} %".format(*ends["principal components"]) in text


@pytest.mark.parametrize("look", ["light", "dark"])
def test_the_picture_was_drawn_from_the_published_results(look):
    """Otherwise: make pictures."""
    assert pictures.digest_in(DOCS / "pictures" / f"quick-{look}.svg") == pictures.digest()
    idea = getattr(pictures, look.upper())
    assert (DOCS / "pictures" / f"idea-{look}.svg").read_text() == pictures.idea(idea)


def test_what_is_said_of_schedules_is_as_published():
    text = " ".join((DOCS / "results.md").read_text().split())
    suite, table = "schedules", published.comparisons("schedules")
    primary = table[table["family"] == "primary"]
    assert (len(primary), (primary["verdict"] != "undecided").sum()) == (24, 4)
    gains = {
        kind: {method: published.over_rows(suite, method, kind)["mean"] for method in MOST} for kind in published.KINDS
    }
    for kind, words in (
        ("constant", "most averages gain {:.1f} to {:.1f}"),
        ("partly annealed", "where it falls to half {:.1f} to {:.1f}"),
    ):
        assert words.format(min(gains[kind].values()), max(gains[kind].values())) in text
    everything = set(published.summary(suite)["method"]) - {"base", "base_recalibrated", "cooldown"}
    most = max(published.over_rows(suite, method, "annealed")["mean"] for method in everything)
    assert f"where it falls to 0 none more than {most:.2f}" in text
    rivals = published.pd.read_csv(published.PUBLISHED / suite / "rivals.csv")
    methods = rivals[(rivals["metric"] == "test_accuracy") & ~rivals["method"].isin(["base", "base_recalibrated"])]
    assert {line["twin"] for _, line in methods.iterrows()} == {"sgd_momentum_wsd", "adam_wsd"}
    assert methods.groupby("model").size().to_dict() == {"test_resnet": 19, "test_vit": 19}
    assert "ahead" not in set(methods["verdict"])
    counts = methods.groupby("model")["verdict"].value_counts()
    assert counts["test_resnet"].idxmax() == "close"
    assert f"on the ViT {counts['test_vit', 'behind']} are behind" in text
    assert methods[methods["method"] == "cooldown"]["mean"].tolist() == [0, 0]
    beside = {row: round(mean("cmd_posthoc", row, "ema", suite), 2) for row in published.rows_of(suite)}
    falling = [value for row, value in beside.items() if row[2].endswith(("_cosine", "_wsd"))]
    others = [value for row, value in beside.items() if not row[2].endswith(("_cosine", "_wsd"))]
    assert f"has {min(others):+.2f} to {max(others):+.2f} points beside EMA" in text
    assert f"and {min(falling):+.2f} to {max(falling):+.2f} where the rate falls to 0" in text
    kinds = [published.over_rows(suite, "cmd_posthoc", kind, "cmd_mean_kernel")["mean"] for kind in published.KINDS]
    assert f"{min(kinds):.1f} to {max(kinds):.1f} points at every schedule" in text
    plain = {row[2]: published.means(suite)[row, "base_recalibrated"][0] for row in published.rows_of(suite)}
    behind = [plain[f"{name}_wsd"] - plain[f"{name}_cosine"] for name in ("sgd_momentum", "adam")]
    assert "has {:.2f} points less than `wsd` on the ResNet and {:.2f} less".format(*behind) in text


MOST = tuple(method for method in AVERAGES if method != "lawa")
"""averages that look back over a few short epochs, or choose how far"""
