"""Recipes: what wins over what, that each is valid and trains, and that a run is the same without the recipe's name."""

import dataclasses

import pytest
import torch

import popup
from models import MODELS
from popup.lab.commands.arguments import parse
from popup.lab.commands.command import main
from popup.lab.commands.recipes_command import hint
from popup.lab.commands.unused import option
from popup.lab.config import Config
from popup.lab.data.datasets import DATASETS, OF_FILES
from popup.lab.recipes import DEFAULT, RECIPES
from popup.search.settings import SearchSettings

CONV4 = "edge_popup_conv4_cifar10"


def config(*arguments):
    return parse(arguments, "", {}).configs[0]


def test_without_a_recipe_and_with_the_default_one_a_run_is_that_of_the_defaults():
    assert config() == config("--recipe", DEFAULT) == RECIPES[DEFAULT].config() == Config()


@pytest.mark.parametrize("arguments", [["--recipe", CONV4, "--batch-size", "32"], ["--batch-size", "32", "--recipe", CONV4],
                                       [f"--recipe={CONV4}", "--batch-size=32"]])
def test_what_is_given_wins_over_the_recipe_even_if_it_is_the_default(arguments):
    assert Config().training.batch_size == 32 != RECIPES[CONV4].config().training.batch_size
    assert config(*arguments) == RECIPES[CONV4].config().replace(batch_size=32)


@pytest.mark.parametrize("recipe", RECIPES)
def test_options_named_with_their_defaults_are_as_if_not_named(recipe):
    plain = parse(["--recipe", recipe], "", {})
    values = plain.configs[0].flat() | dataclasses.asdict(plain.output) | dataclasses.asdict(plain.machine)
    named = {name: str(value) for name, value in values.items()
             if isinstance(value, int | float | str) and not isinstance(value, bool) and value != "" and name != "role"}
    found = parse(["--recipe", recipe, *(f"--{option(name)}={value}" for name, value in named.items())], "", {})
    assert dataclasses.replace(found, given=plain.given) == plain
    assert found.given == plain.given | named.keys() and len(named) > 30


def test_a_recipe_may_be_swept():
    found = parse(["--recipe", CONV4, "--er-p", "0.2", "1", "--model", "conv2", "conv4", "--seeds", "2"], "", {}).configs
    assert found == [RECIPES[CONV4].config().replace(model=model, er_p=p, seed=seed)
                     for p in (0.2, 1.0) for model in ("conv2", "conv4") for seed in (0, 1)]


def test_what_a_recipe_says_of_the_search_and_another_method_does_not_use_is_no_error():
    found = config("--recipe", "conv4_cifar10", "--method", "gates")
    assert found == config("--recipe", "conv4_cifar10", "--method", "gates", "--anneal", "none")
    assert RECIPES["conv4_cifar10"].config().search.anneal == "cubic" and found.search == SearchSettings("gates")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_of_known_fields_and_says_where_it_is_from(name):
    found = RECIPES[name]
    assert found.settings.keys() <= Config().flat().keys()
    assert len(found.origin) > 10
    task = found.config().task
    assert task.model in MODELS and (task.dataset in DATASETS or task.dataset.partition(":")[0] in OF_FILES)


@pytest.mark.filterwarnings("ignore:.*stay dense")  # embeddings
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains(name):
    settings = RECIPES[name].config().replace(epochs=1, batch_size=8, warmup=0.0)
    image = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "text:": (8,)}.get(settings.task.dataset, (3, 32, 32))
    net = MODELS[settings.task.model](image, 10, width=1 / 16)
    images = torch.randint(0, 256, (24, *image), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    data = images, torch.arange(24) % 10
    if len(image) == 1:
        data = images.long() % 10, images.long().roll(-1, 1) % 10
    outcome = popup.fit(net, data, data, settings)
    assert outcome.proof.holds


def test_the_list_spells_each_recipe_out_and_the_spelled_out_run_is_the_same(capsys):
    assert main(["recipes"], MODELS) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[::3] == list(RECIPES)
    for name, options in zip(lines[::3], lines[1::3], strict=True):
        spelled = [] if name == DEFAULT else options.split()
        assert config(*spelled).hash() == config("--recipe", name).hash()


def test_a_run_for_whose_model_and_data_there_is_a_recipe_is_told_so(capsys, tmp_path):
    given = ["--model", "conv4", "--dataset", "cifar10", "--data-dir", str(tmp_path), "--out", str(tmp_path)]
    assert main(given, MODELS) == 2  # the data are not there
    assert CONV4 in capsys.readouterr().out
    assert main([*given, "--recipe", CONV4], MODELS) == 2
    assert CONV4 not in capsys.readouterr().out


def test_runs_on_a_text_have_its_recipe_without_asking_and_others_none(capsys):
    for dataset in ("text:", "text:/some/where.txt"):
        found = config("--dataset", dataset)
        assert found == config("--recipe", "gpt_text", "--dataset", dataset) and found.task.model == "gpt"
        assert config(f"--dataset={dataset}", "--lr", "0.5") == found.replace(lr=0.5)
        hint([found])
        assert "--recipe gpt_text" in capsys.readouterr().out
    assert config("--dataset", "mnist") == Config().replace(dataset="mnist")
    assert config("--dataset", "text:", "--recipe", DEFAULT) == Config().replace(dataset="text:")
