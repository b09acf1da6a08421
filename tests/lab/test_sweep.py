"""Grids end to end: cells, controls, claims, failures, the CSV, the report; and that --workers changes nothing."""

import csv
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from models import MODELS
from popup.lab.commands.arguments import parse
from popup.lab.commands.command import main
from popup.lab.config import Config
from popup.lab.report.command import command_of
from popup.lab.report.comparison import settings
from popup.lab.report.contrasts import best_contrasts, source_contrasts
from popup.lab.report.results import read_directory
from popup.lab.runs.cell import Cell
from popup.lab.runs.controls import CONTROLS, control_config
from popup.lab.runs.grid import find_cells, plan

ROOT = Path(__file__).parents[2]
QUICK = ["--epochs", "2", "--widths", "32"]
GRID = [*QUICK, "--er-p", "0.3", "1", "--k", "0.5", "--density", "uniform", "balanced", "--seeds", "2",
        "--controls", "random", "random_trained", "dense_trained"]
NOT_MEASURED = ("seconds", "peak_memory")


def rows(out):
    with open(out / "results.csv", encoding="utf-8", newline="") as file:
        return [{name: value for name, value in row.items() if name not in NOT_MEASURED} for row in csv.DictReader(file)]


def tickets(out):
    return {path.parent.name: path.read_bytes() for path in sorted(out.glob("*/ticket.safetensors"))}


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    out = tmp_path_factory.mktemp("sweep") / "runs"
    assert main([*GRID, "--workers", "1", "--out", str(out)], MODELS) == 0
    return out


def request(*arguments):
    return parse(arguments, "", {})


def test_the_grid_is_the_product_of_the_axes_times_the_seeds():
    configs = request("--er-p", "0.1", "0.2", "--k", "0.5", "1", "--seeds", "3", "--seed", "7").configs
    assert [(config.source.er_p, config.source.k, config.source.seed) for config in configs] == [
        (p, k, seed) for p in (0.1, 0.2) for k in (0.5, 1.0) for seed in (7, 8, 9)]
    assert len(request("--k", "0.5", "0.5").configs) == 1, "a value given twice is one cell"


def test_a_setting_that_does_not_matter_to_a_method_makes_no_second_run_of_it():
    configs = request("--method", "random", "edge_popup", "frozen", "--locked", "0.2", "0.4", "--anneal", "none", "cubic").configs
    searches = [(config.search.method, config.search.locked, config.search.anneal) for config in configs]
    assert searches[0] == ("random", 0.5, "none") and len(set(searches)) == len(searches) == 1 + 2 + 4


def test_final_density_takes_the_place_of_k_and_impossible_cells_are_told():
    asked = request("--er-p", "0.05", "0.2", "--final-density", "0.1", "0.05")
    assert [(config.source.er_p, config.source.k) for config in asked.configs] == [(0.05, 1.0), (0.2, 0.5), (0.2, 0.25)]
    assert asked.impossible == [(0.05, 0.1)]


def test_controls_that_do_not_depend_on_a_factor_are_one_run():
    configs = request("--er-p", "0.2", "0.5", "--k", "0.5", "0.25", "--seeds", "2").configs
    roles = [config.task.role for config in plan(configs, list(CONTROLS))]
    assert {role: roles.count(role) for role in set(roles)} == {
        "ticket": 8, "random": 8, "shuffled": 8, "redrawn": 8, "source": 8, "random_trained": 8, "er_trained": 6 - 2,
        "dense_trained": 2, "ticket_trained": 8, "shuffled_trained": 8, "redrawn_trained": 8, "magnitude_trained": 8,
        "magnitude_global_trained": 8}


def test_a_source_with_all_edges_is_one_run_however_it_would_spread_fewer(tmp_path):
    grid = ["--er-p", "1", "0.5", "--density", "erk", "uniform", "balanced", "--mask", "exact", "bernoulli", "--k", "0.5", "0.25"]
    planned = plan(request(*grid).configs, ["er_trained"])
    whole = [config for config in planned if config.source.er_p == 1]
    assert [(one.task.role, one.source.k) for one in whole] == [("ticket", 0.5), ("ticket", 0.25), ("er_trained", 1.0)]
    assert {(one.source.density, one.source.mask) for one in whole} == {("uniform", "bernoulli")}
    assert len(planned) == 3 + 2 * 3 * 2 + 2 * 3
    for more, kept in (([], ["erk"]), (["--no-redistribute"], ["pyramidal", "erk"])):  # without, these are two networks
        asked = request("--er-p", "1", "--density", "pyramidal", "erk", *more).configs
        assert [config.source.density for config in plan(asked, [])] == kept
    quick = [*QUICK, "--er-p", "1", "0.5", "--seeds", "2", "--controls", "none", "--workers", "1"]
    assert main([*quick, "--density", "uniform", "erk", "--out", str(tmp_path)], MODELS) == 0
    found = command_of(read_directory(tmp_path).runs)
    assert "--er-p 0.5 1 --density erk uniform" in found and main([*shlex.split(found)[2:], "--out", str(tmp_path)], MODELS) == 0
    assert len(rows(tmp_path)) == 2 * 3


def test_a_network_that_was_planned_by_another_name_is_not_planned_again(tmp_path, capsys):
    """Nor is one left undone that an earlier version planned twice."""
    quick = [*QUICK, "--controls", "none", "--plan-only", "--out", str(tmp_path)]
    assert main([*quick, "--er-p", "1", "0.5", "--density", "erk"], MODELS) == 0
    assert main([*quick, "--er-p", "1", "0.5", "--density", "uniform", "erk"], MODELS) == 0
    assert "3 runs: 3 tickets (1 more would be the same: with p = 1 there is nothing to spread)" in capsys.readouterr().out
    densities = [cell.config.source.density for cell in find_cells(tmp_path).cells if cell.config.source.er_p == 1]
    assert densities == ["erk"]
    assert main([*quick, "--er-p", "1", "--density", "uniform"], MODELS) == 0, "asked for alone"
    assert main([*quick, "--er-p", "1", "0.5", "--density", "uniform", "erk"], MODELS) == 0
    assert capsys.readouterr().out.count("4 runs: 4 tickets and 0 controls") == 1


def test_controls_that_train_weights_start_the_same_whatever_suits_the_search(tmp_path):
    tuned = {"gain": 1.1, "anneal": "cubic", "rank": "value"}
    for role in ("er_trained", "dense_trained"):
        assert control_config(Config().replace(**tuned), role) == control_config(Config(), role)
    found = []
    for place, options in (("plain", []), ("tuned", ["--gain", "1.1", "--anneal", "cubic"])):
        out = ["--out", str(tmp_path / place)]
        assert main([*QUICK, *options, "--controls", "random_trained", "--workers", "1", *out], MODELS) == 0
        found.append({row["role"]: row["test_loss"] for row in rows(tmp_path / place)})
    plain, tuned = found
    assert plain["random_trained"] == tuned["random_trained"] and plain["ticket"] != tuned["ticket"]


def test_a_sweep_leaves_tickets_controls_csv_report_and_pictures(swept):
    found = rows(swept)
    roles = [row["role"] for row in found]
    assert roles.count("ticket") == 6 and roles.count("random") == 6 and roles.count("dense_trained") == 2
    assert {(row["status"], row["precision"], row["realised_precision"], row["ranks"]) for row in found} == {
        ("finished", "auto", "fp32", "1")}
    assert len(tickets(swept)) == 6
    for name in ("report.txt", "report.html", "figures/accuracy.png", "figures/accuracy.svg"):
        assert (swept / name).stat().st_size > 500
    assert max(map(len, (swept / "report.txt").read_text().splitlines())) <= 100


def test_controls_have_the_tickets_own_counts(swept):
    runs = read_directory(swept).runs
    for setting in settings(runs):
        for role in ("random", "random_trained"):
            for ticket, control in zip(setting.runs, setting.controls[role], strict=True):
                assert [row["kept"] for row in ticket.result["layers"]] == [row["kept"] for row in control.result["layers"]]


def test_every_control_runs_on_its_tickets_source(tmp_path):
    arguments = [*QUICK, "--scope", "global", "--er-p", "0.5", "--controls", "all", "--workers", "1", "--out", str(tmp_path)]
    assert main(arguments, MODELS) == 0
    (setting,) = settings(read_directory(tmp_path).runs)
    (ticket,) = setting.runs
    assert all(len(setting.controls[role]) == 1 for role in CONTROLS)
    results = {role: runs[0].result for role, runs in setting.controls.items()}
    for role in ("random", "shuffled", "redrawn", "random_trained", "ticket_trained", "shuffled_trained", "redrawn_trained",
                 "magnitude_trained"):
        assert [row["kept"] for row in results[role]["layers"]] == [row["kept"] for row in ticket.result["layers"]]
    for role in ("source", "er_trained"):
        assert results[role]["kept"] == results[role]["edges"] == ticket.result["edges"]
    assert results["dense_trained"]["kept"] == ticket.result["entries"]
    pruned = results["magnitude_global_trained"]
    assert pruned["kept"] == ticket.result["kept"] and pruned["edges"] == ticket.result["entries"]


def test_workers_change_no_byte_of_a_ticket_and_no_figure(swept, tmp_path):
    assert main([*GRID, "--workers", "2", "--out", str(tmp_path)], MODELS) == 0
    assert tickets(tmp_path) == tickets(swept)
    assert rows(tmp_path) == rows(swept)


def test_a_second_call_runs_nothing_again_and_grids_share_cells(swept, capsys):
    before = {path: path.stat().st_mtime_ns for path in swept.glob("*/result.json")}
    assert main([*GRID, "--workers", "1", "--out", str(swept)], MODELS) == 0
    assert main([*QUICK, "--er-p", "0.3", "--k", "0.5", "--controls", "random", "--workers", "1", "--out", str(swept)],
                MODELS) == 0
    assert {path: path.stat().st_mtime_ns for path in swept.glob("*/result.json")} == before
    assert main(["report", str(swept)], MODELS) == 0
    assert len(rows(swept)) == len(before)


def test_contrasts_pair_what_differs_in_one_thing_only(swept):
    found = settings(read_directory(swept).runs)
    contrasts = best_contrasts(found, "density")
    assert len(contrasts) == 1, "two densities at p = 0.3; at p = 1 both are one network"
    for contrast in contrasts:
        first, second = contrast.first.config, contrast.second.config
        assert first.replace(density="uniform") == second.replace(density="uniform")
        assert {first.source.density, second.source.density} == {"uniform", "balanced"}
        assert contrast.first.accuracy.value >= contrast.second.accuracy.value
    assert source_contrasts(found) == []  # 0.3 * 0.5 and 1 * 0.5 are two final densities


@pytest.mark.drawn
def test_sources_are_compared_at_equal_final_density_only(tmp_path):
    arguments = [*QUICK, "--er-p", "0.25", "0.5", "1", "--final-density", "0.25", "0.125", "--seeds", "2", "--controls", "none"]
    assert main([*arguments, "--workers", "1", "--out", str(tmp_path)], MODELS) == 0
    contrasts = source_contrasts(settings(read_directory(tmp_path).runs))
    pairs = [(contrast.first.config.source, contrast.second.config.source) for contrast in contrasts]
    assert sorted((first.er_p, first.k, second.er_p, second.k) for first, second in pairs) == [
        (0.25, 0.5, 1.0, 0.125), (0.25, 1.0, 1.0, 0.25), (0.5, 0.25, 1.0, 0.125), (0.5, 0.5, 1.0, 0.25)]
    for contrast in contrasts:
        first, second = contrast.first.accuracies, contrast.second.accuracies
        assert contrast.difference.value == pytest.approx(sum(first[seed] - second[seed] for seed in (0, 1)) / 2)


def test_a_failing_cell_is_recorded_and_the_others_go_on(tmp_path, capsys):
    assert main([*QUICK, "--er-p", "0.5", "--k", "0.5", "--lr", "1e30", "--gain", "1e20", "--seeds", "2", "--controls",
                 "random", "dense_trained", "--workers", "1", "--out", str(tmp_path)], MODELS) == 1
    found = rows(tmp_path)
    failed = [row for row in found if row["status"] == "failed"]
    assert {row["role"] for row in failed} >= {"ticket", "random"} and len(found) == 6
    assert all("not finite" in row["reason"] for row in failed if row["role"] != "random")
    assert all("its ticket failed" in row["reason"] for row in failed if row["role"] == "random")


def test_a_control_that_diverges_names_the_rate_of_its_weights(tmp_path):
    main([*QUICK, "--weight-lr", "1e30", "--controls", "dense_trained", "--workers", "1", "--out", str(tmp_path)], MODELS)
    assert [row["reason"].split("): ")[1] for row in rows(tmp_path) if row["role"] == "dense_trained"] == ["lower --weight-lr"]


def test_a_claim_holds_against_another_process_and_ends_with_it(tmp_path):
    cell = Cell(tmp_path, Config())
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys, time; from pathlib import Path; from popup.lab.runs.cell import Cell; "
         "from popup.lab.config import Config; cell = Cell(Path(sys.argv[1]), Config()); claim = cell.claim(); "
         "print(claim.__enter__(), flush=True); time.sleep(60)", str(tmp_path)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "True\n"
        with cell.claim() as mine:
            assert not mine
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    with cell.claim() as mine:
        assert mine


def test_two_processes_on_one_directory_and_a_kill_lose_nothing(tmp_path, swept):
    command = [sys.executable, "run.py", *GRID, "--workers", "1", "--out", str(tmp_path)]
    first, second = (subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) for _ in range(2))
    while len(list(tmp_path.glob("*/result.json"))) < 10 and first.poll() is None:
        time.sleep(0.01)
    first.kill()
    first.wait()
    assert second.wait() == 0
    assert rows(tmp_path) == rows(swept)
    assert tickets(tmp_path) == tickets(swept)


def test_a_single_run_that_another_process_is_doing_is_refused(tmp_path):
    config = Config.from_flat({"epochs": 2, "widths": (32,), "compute": "dense"})  # as auto comes to
    command = [sys.executable, "run.py", *QUICK, "--out", str(tmp_path)]
    with Cell(tmp_path, config).claim() as mine:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert mine and done.returncode == 2
    assert done.stderr.startswith("popup: another process is doing this run") and done.stderr.count("\n") == 1
    assert main(command[2:], MODELS) == 0


def test_report_refuses_a_directory_without_runs(tmp_path, capsys):
    assert main(["report", str(tmp_path)], MODELS) == 2
    assert "holds no finished run" in capsys.readouterr().err


def test_control_configs_differ_from_their_tickets_in_role_and_what_they_ignore():
    config = Config()
    assert control_config(config, "random") == config.replace(role="random")
    dense = control_config(config.replace(er_p=0.1, density="erk", k=0.3), "dense_trained")
    assert (dense.source.er_p, dense.source.k, dense.source.density) == (1.0, 1.0, "uniform")
    assert json.loads(json.dumps(config.record())) and Config.from_record(json.loads(json.dumps(dense.record()))) == dense
