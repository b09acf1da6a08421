"""What tells a network from another: the same in each process and on each device, another where it computes otherwise."""

import functools
import random
import secrets
import subprocess
import sys
import weakref
from collections import UserDict
from dataclasses import dataclass
from enum import Enum

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from popup import attach
from popup.lab.identity import described, differ, differing, fingerprint, held, kept, listed, whatever_the_seed
from popup.lab.randomness import numbers_state
from popup.lab.training.beside import beside, draws_kept_if_it_fails, generator_records, generators, set_generators

OF_A_SET = """
import torch
from popup.lab.identity import described, fingerprint
net = torch.nn.Linear(2, 2)
net.kinds = {"a", "b", "c", "d", "e"}
net.extra_repr = lambda: str(net.kinds)
print(fingerprint(described(net)))
"""


class Kind(Enum):
    ONE, OTHER = object(), object()


RING, OTHER_RING = [], []
RING.append(RING), OTHER_RING.append(OTHER_RING)


@dataclass(slots=True)
class Options:
    slope: float


class Placed:
    __slots__ = ("slope",)

    def __init__(self, slope):
        self.slope = slope


class Named(str):
    """Whose own words hold an address."""

    def __repr__(self):
        return object.__repr__(self)


class Near:
    """Objects that name one another."""

    def __init__(self):
        self.near, self.all = set(), []


def web(count, extra=0):
    nodes = [Near() for _ in range(count)]
    for node in nodes:
        node.near, node.all = set(nodes), list(nodes)
    nodes[-1].all += [extra]
    return nodes


class Odd:
    def __getattr__(self, name):
        raise KeyError(name)

    def __call__(self):
        return 0


def gone():
    return weakref.proxy(Near())


class Broken(UserDict):
    def items(self):
        raise RuntimeError("not now")


class Noise:
    def __init__(self):
        self.own, self.calls = np.random.default_rng(0), 0


class Masked(nn.Linear):
    def __init__(self):
        super().__init__(4, 2)
        self.noise = Noise()


class Holding(nn.Module):
    """Of this file, as `Placed` is."""

    def __init__(self, value):
        super().__init__()
        self.value = value


def scaled(slope):
    def act(values, *, by=slope):
        return values * by
    return act


def one_of(first, second):
    return lambda values: values if first is None else second


def hooked(by):
    net = nn.Linear(2, 2)
    net.register_forward_hook(lambda module, inputs, output: output * by)
    return net


def tied(alike):
    torch.manual_seed(0)
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = first.weight if alike else nn.Parameter(first.weight.clone())
    return nn.Sequential(first, second)


def sparse(*values):
    net = nn.Module()
    net.register_buffer("edges", torch.diag(torch.tensor(values)).to_sparse())
    return net


def of(net):
    return fingerprint(described(net) | held(net))


def with_values(**values):
    net = nn.Linear(2, 2)
    for name, value in values.items():
        setattr(net, name, value)
    return net


def test_it_is_the_same_in_each_process():
    found = {subprocess.run([sys.executable, "-c", OF_A_SET], capture_output=True, text=True, check=True,
                            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)}).stdout for seed in "123"}
    assert len(found) == 1 and "torch" in next(iter(found))


@pytest.mark.parametrize(("one", "other"), [
    (with_values(slope=1.0), with_values(slope=2.0)), (with_values(act=F.relu), with_values(act=F.gelu)),
    (with_values(act=functools.partial(F.gelu, approximate="tanh")), with_values(act=functools.partial(F.gelu))),
    (with_values(kind=Kind.ONE), with_values(kind=Kind.OTHER)),
    (with_values(sizes=[1, (2, 3)]), with_values(sizes=[1, (2, 4)])), (with_values(of={"a": 1}), with_values(of={"a": 2})),
    (with_values(of=Options(1.0)), with_values(of=Options(2.0))), (Holding(Placed(1.0)), Holding(Placed(2.0))),
    (with_values(act=scaled(1.0)), with_values(act=scaled(2.0))),
    (with_values(act=one_of(None, 3)), with_values(act=one_of(3, None))),
    (with_values(act=functools.lru_cache(scaled(1.0))), with_values(act=functools.lru_cache(scaled(2.0)))),
    (with_values(of={1: {2: {3: {4: {5: {6: 7}}}}}}), with_values(of={1: {2: {3: {4: {5: {6: 8}}}}}})),
    (Holding(web(40)), Holding(web(40, 1))), (with_values(all=2 ** 20_000), with_values(all=2 ** 20_000 + 1)),
    (with_values(all={F.relu, F.gelu}), with_values(all={F.relu, F.silu})),
    (with_values(all={((0, 1), "add"), ((1, 3), "cat")}), with_values(all={((0, 1), "cat"), ((1, 3), "add")})),
    (with_values(all=[0] * 200_000 + [1]), with_values(all=[0] * 200_001)), (with_values(all={}), with_values(all=[{}])),
    (with_values(names=np.array(["a", "b"])), with_values(names=np.array(["a", "c"]))), (hooked(1.0), hooked(2.0)),
    (with_values(), hooked(1.0)), (tied(True), tied(False)), (sparse(1.0, 2.0), sparse(1.0, 3.0)),
    (sparse(1.0, 0.0), sparse(0.0, 1.0)),
    (nn.Linear(2, 2), nn.Linear(2, 2).double()), (with_values(name=Named("a")), with_values(name=Named("b"))),
    (nn.Sequential(nn.ReLU()), nn.Sequential(nn.Tanh())), (nn.Linear(2, 3), nn.Linear(3, 2)), (nn.Dropout(0.1), nn.Dropout(0.2))])
def test_what_is_other_is_seen(one, other):
    assert differ(of(one), of(other))


@pytest.mark.parametrize(("one", "other"), [
    (with_values(), with_values().eval().requires_grad_(False)), (with_values(cache=object()), with_values(cache=object())),
    (with_values(_kept=1), with_values(_kept=2)), (with_values(rate=np.float64(0.5)), with_values(rate=0.5)),
    (with_values(last=torch.ones(2)), with_values(last=torch.zeros(2))),
    (with_values(ring=RING), with_values(ring=OTHER_RING)), (with_values(of=Broken(a=1)), with_values(of=Broken(a=1))),
    (Holding(web(40)), Holding(web(40))), (Holding(Odd()), Holding(Odd())), (Holding([gone()]), Holding([gone()])),
    (with_values(name=Named("a")), with_values(name=Named("a"))), (with_values(where=["cpu"]), with_values(where=["cuda:0"])),
    (with_values(all=[nn.Linear(1, 1)]), with_values(all=[nn.Linear(1, 1).eval()])),
    (nn.ParameterList([torch.ones(2)]), nn.ParameterList([torch.ones(2)]).to("meta"))])
def test_what_makes_no_other_network_is_not(one, other):
    assert not differ(of(one), of(other))


@pytest.mark.parametrize(("one", "other"), [
    (lambda: [torch.ones(2)], lambda: [torch.zeros(2)]), (lambda: {"a": np.ones(2)}, lambda: {"a": np.zeros(2)}),
    (lambda: np.ones(2, ">f4"), lambda: np.zeros(2, ">f4")),
    (lambda: np.ones(2, np.longdouble), lambda: np.zeros(2, np.longdouble)),
    (lambda: [np.random.default_rng(0)], lambda: [np.random.default_rng(1)]),
    (lambda: np.random.PCG64(0), lambda: np.random.PCG64(1)),
    (lambda: {np.random.default_rng(0)}, lambda: {np.random.default_rng(1)}),
    (lambda: np.frombuffer(bytes(8)), lambda: np.frombuffer(bytes(16))),
    (lambda: np.random.default_rng(0).random, lambda: np.random.default_rng(1).random),
    (lambda: [tied(True)], lambda: [nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))])])
def test_numbers_and_generators_are_seen_whatever_they_stand_inside_of(one, other):
    assert kept(Holding(one())) == kept(Holding(one())) != kept(Holding(other())) != {}
    assert kept(nn.Sequential(Holding([]))) == {}


@pytest.mark.parametrize("drawn", [
    lambda: random.random, lambda: np.random.rand, lambda: [np.random.mtrand._rand], lambda: random._inst, random.SystemRandom,
    lambda: secrets.choice, lambda: torch.default_generator])
def test_generators_that_all_draw_from_are_none_of_the_networks(drawn):
    net, rows = Holding(drawn()), []
    for seed in (1, 2):
        random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
        rows.append((described(net) | kept(net), generators(net)))
    assert rows[0] == rows[1] and rows[0][1] == {}


def test_draws_are_as_before_if_some_of_their_states_are_none():
    net = Holding([np.random.default_rng(0), np.random.RandomState(0)])
    before, records = (generator_records(net), numbers_state()), generator_records(Holding([np.random.default_rng(1)] * 2))
    with pytest.raises(IndexError), draws_kept_if_it_fails(net):
        random.seed(3), np.random.seed(3)
        set_generators(net, {"value[0]": records["value[0]"], "value[1]": ["MT19937", [1, 2], 3, 0, 0.0]})
    assert (generator_records(net), numbers_state()) == before


def test_what_masked_modules_of_the_users_hold_is_seen_as_before():
    net = nn.Sequential(Masked())
    before = [list(found) for found in (described(net), kept(net), generators(net))]
    attach(net, er_p=0.5)
    assert set(generators(net)) == {"0 noise.own"} == set(before[2]) and "0.noise" in beside(net)


@pytest.mark.filterwarnings("ignore:.*(nested tensors|quantize)")
@pytest.mark.parametrize("make", [
    lambda: torch.ones(2).to("meta"), lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)])
def test_of_a_tensor_whose_numbers_are_not_there_one_by_one_the_class_is_seen(make):
    value = make()
    assert kept(Holding(value)) == {} and "a Tensor" in described(Holding([value]))["value"]


def test_of_a_buffer_outside_the_state_last_bits_are_not_seen_and_numbers_are():
    def buffered(values):
        net = nn.Module()
        net.register_buffer("table", values, persistent=False)
        return of(net)

    table = torch.linspace(0, 3, 500).sin()
    assert not differ(buffered(table), buffered(table * (1 + 1e-7)))
    assert differ(buffered(table), buffered(table * 1.1)) and differ(buffered(table), buffered(-table))
    assert differ(buffered(torch.arange(5)), buffered(torch.arange(5).flip(0)))


def test_fingerprints_of_two_versions_of_torch_or_none_are_not_compared():
    assert differ("torch 2.6.0, python 3.11: p=a", "torch 2.6.0, python 3.11: p=b")
    assert not differ("torch 2.6.0, python 3.11: p=a", "torch 2.7.0, python 3.11: p=b")
    assert not differ("torch 2.6.0: a", "torch 2.6.0, python 3.11: p=b"), "of before"
    assert not differ("", "torch 2.6.0, python 3.11: p=b") and differ("a", "b")


def test_the_words_that_differ_are_told_and_those_of_another_seed_are_not_compared():
    def known(words):
        return f"torch 2.6.0, python 3.11: {words}"

    assert differing(known("a=1 b=2 c=3"), known("a=1 b=4 d=3")) == ["b", "c", "d"]
    assert differing(known("a=1 b@0=2"), known("a=1 b@1=3")) == []
    assert differing(known("a=1 b@1=2"), known("a=1 b@1=3")) == ["b"]
    assert differing(known("a=1 b@0=2"), known("a=2 b@1=3")) == ["a"], "whatever else the seed draws"
    assert differing(known("a=1 b=2"), known("a=1 b@0=2")) == ["b"], "what no seed drew then, it draws now"
    assert whatever_the_seed(known("a=1 b@0=2")) == known("a=1") and listed(list("abcdefg")) == "a, b, c, d, e and 2 more"
