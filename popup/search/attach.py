"""Attach a search to a network, in place.

    popup.attach(net, er_p=0.2, k=0.5, density="erk", seed=0)
    optimizer = torch.optim.SGD(popup.scores(net), lr=0.1, momentum=0.9)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from popup.errors import UsageError, check_name
from popup.search.compute import COMPUTES, calls_of, sparse_layers
from popup.search.contract import gate_faults, unasked
from popup.search.given import as_patterns, check_alone, check_given, numbers, own_weights, plain_number
from popup.search.held import refuse_held
from popup.search.methods import METHODS
from popup.search.network import ATTRIBUTE, is_attached, unwrapped
from popup.search.plain import merge
from popup.search.put_on import attach_layers
from popup.search.reach import refuse_seen
from popup.search.refusals import refuse_inference, refuse_saving, refuse_tracing, refuse_wrapped
from popup.search.search import Search
from popup.search.settings import SearchSettings
from popup.search.share import refuse_grouped, refuse_padding, tell_biases, tell_left_out
from popup.search.trial import refuse_unfaithful
from popup.search.untouched import Untouched
from popup.source.copying import without_hooks
from popup.source.densities import total_density
from popup.source.frozen import freeze, written_by_freeze
from popup.source.gains import as_one
from popup.source.layer_source import draw_source
from popup.source.layers import MOST_LAYERS, MOST_SIDES, find_layers
from popup.source.masks import given_edges
from popup.source.recipe import GIVEN, Recipe
from popup.source.storable import refuse_unstorable
from popup.source.undo import all_or_nothing

USUAL, PLAIN = Recipe(), SearchSettings()  # whose defaults are those of the keywords


def attach(net: nn.Module, recipe: Recipe | None = None, search: SearchSettings | None = None, *,
           er_p: float | None = None, k: float = USUAL.k, seed: int = USUAL.seed,
           density: str | Mapping[str, float] = USUAL.density, redistribute: bool = USUAL.redistribute, mask: str = USUAL.mask,
           ticket_density: str = USUAL.ticket_density, bias: str = USUAL.bias, weights: str = USUAL.weights,
           scale: str = USUAL.scale, gain: float | str | Mapping[str, float] = USUAL.gain, connected: bool = USUAL.connected,
           count: str = USUAL.count, scope: str = PLAIN.scope, method: str = PLAIN.method, score_scale: float = PLAIN.score_scale,
           masks: Mapping[str, np.ndarray | torch.Tensor] | None = None, compute: str = "auto",
           skip: str | Sequence[str] = USUAL.skip, only: str | Sequence[str] = USUAL.only) -> nn.Module:
    """Turn `net` into an ER source with learned scores, in place, and return it.

    The source is what `recipe` says, the search what `search` does; or their fields are given as keywords (of `SearchSettings`
    the usual ones). The two dataclasses describe them. The keyword `density` may also map each layer's parameter name to its
    p_l, in place of `er_p`; `gain` may map patterns of names to gains, "*" being that of the weights which no other pattern is
    of (popup/source/gains.py). With `mask="given"` S_ER is what `masks` says, a bool array of each layer's shape by its
    parameter name, in place of `er_p` and `density`; p_l is its realised density, and tickets store it (a bit an entry). With
    `weights="given"` each edge keeps the weight that `net` has there (never 0), unscaled, and tickets store them (4 bytes an
    edge). With `bias="search"` each layer's bias is a layer of its own. `compute` says which layers compute on their edges
    alone, without a dense weight: none ("dense"), all linear layers and, with numba, convolutions that can ("sparse"), or those
    where it is faster on the CPU in float32, by the rule of popup/products/rule.py ("auto"). `skip` names modules or
    parameters, also by patterns ("*.head"), that are not masked, `only` those that alone are; an embedding is masked only where
    `only` names it. What is not masked stays dense, frozen as `net` has it, and tickets store it. Everything but the scores is
    frozen: other biases at 0, norm affines at 1 and 0, gains of blocks at 1, other parameters as they are. Raises UsageError,
    and changes nothing, if `net` cannot be attached or a value is not allowed. `net` is not run: what is seen of it without
    data, and what is not, stands in docs/refused-models.md.
    """
    if recipe is None:
        check_given(er_p, density, mask, masks)
    given, rule = (numbers(density), GIVEN) if isinstance(density, Mapping) else (None, density)
    told = Recipe(er_p=USUAL.er_p if er_p is None else plain_number(er_p), k=plain_number(k), seed=plain_number(seed),
                  density=rule, redistribute=redistribute, ticket_density=ticket_density, mask=mask, bias=bias,
                  weights=weights, scale=scale, gain=as_one(numbers(gain)) if isinstance(gain, Mapping) else plain_number(gain),
                  connected=connected, count=count, skip=as_patterns("skip", skip), only=as_patterns("only", only))
    if recipe is not None:
        check_alone("recipe", recipe, Recipe, told == USUAL and er_p is None)
        check_given(None if recipe.mask == GIVEN else recipe.er_p, recipe.density, recipe.mask, masks)
    recipe, edges = recipe or told, None
    if given is not None:
        layers = find_layers(net, skip=recipe.skip, only=recipe.only)
        recipe = replace(recipe, er_p=total_density(layers, recipe.densities(layers, given)))
    if masks is not None:
        layers = recipe.layers(net)
        edges = given_edges(layers, masks)
        recipe = replace(recipe, er_p=sum(map(len, edges.values())) / sum(layer.entries for layer in layers))
    settings = SearchSettings(method, scope, score_scale=score_scale)
    if search is not None:
        check_alone("search", search, SearchSettings, settings == PLAIN)
        settings = search
    own = own_weights(net, recipe.layers(net)) if recipe.weights == GIVEN else None
    check_name("compute", compute, COMPUTES)
    return attach_recipe(net, recipe, settings, given, own, edges, compute)


def attach_recipe(net: nn.Module, recipe: Recipe, settings: SearchSettings,
                  given: Mapping[str, float] | None = None,
                  weights: Mapping[str, np.ndarray] | None = None,
                  edges: Mapping[str, np.ndarray] | None = None, compute: str = "dense",
                  against: torch.dtype = torch.float32) -> nn.Module:
    """`attach` for values that are already in their dataclasses. `given` maps layer names to p_l if recipe.density is
    'given', `weights` to float32 [entries] if recipe.weights is, `edges` to flat indices, ascending, int64, if recipe.mask
    is none that the seed draws, `against`: the number type that layers would compute densely in."""
    if is_attached(unwrapped(net)):
        raise UsageError(f"{type(net).__name__} is attached already: popup.detach(net) first")
    if inner := next((path for path, part in net.named_modules() if is_attached(part)), None):
        raise UsageError(f"{inner} is attached already, and its scores are no frozen weights: popup.detach(...) it first, or "
                         "attach the whole network alone")
    refuse_wrapped(net)
    refuse_inference(net)
    refuse_unstorable(net)
    if settings.method not in METHODS:
        raise UsageError(f"method {settings.method!r} marks tickets that were built without a search: to search use "
                         f"{', '.join(METHODS)}")
    if recipe.weights == GIVEN and not METHODS[settings.method](settings).book.keeps_weights:
        raise UsageError(f"weights are 'given', and method {settings.method} draws weights anew from the seed: use "
                         "weights='signed_constant' or 'kaiming_normal', or another method")
    layers = recipe.layers(net)
    if len(layers) > MOST_LAYERS:
        raise UsageError(f"{type(net).__name__} has {len(layers):,} layers, of which a ticket can hold {MOST_LAYERS:,}: leave "
                         "some out by skip, or attach parts of the network")
    if deep := next((layer for layer in layers if len(layer.shape) > MOST_SIDES), None):
        raise UsageError(f"{deep.name} has {len(deep.shape)} dimensions, of which a ticket can hold {MOST_SIDES}: leave it out "
                         "by skip")
    for name in (name for layer in layers for name in layer.names):
        if not name.isprintable():
            raise UsageError(f"a layer is called {name!r:.80}, and names of a ticket's layers have letters that can be printed: "
                             "give its module another name, or leave it out by skip")
    refuse_grouped(layers, recipe)
    refuse_held(net, layers)
    refuse_unfaithful(net, layers)
    source = draw_source(recipe, layers, given, weights, edges)
    refuse_padding(net, source)
    tell_left_out(net, layers, recipe)
    tell_biases(net, layers, recipe)
    _try_method(settings)
    search = Search(recipe, settings)
    sparse = sparse_layers(net, [(layer.spec, layer.p_l) for layer in source], compute, against)
    products = calls_of(net, {layer.spec: layer.edges for layer in source if layer.spec.name in sparse})
    with all_or_nothing(net, written_by_freeze(net)):
        values = freeze(net)
        attach_layers(net, search, source, products)
        _hang_on(net, search)
        search.untouched = Untouched(net, search.scores(), values)
        refuse_saving(net)
    return net


def _hang_on(net: nn.Module, search: Search) -> None:
    """The search on its network, and its hooks."""
    tracing = net.register_forward_pre_hook(refuse_tracing)
    search.hooks = [net.register_forward_pre_hook(look_once, with_kwargs=True), tracing,
                    net.register_forward_pre_hook(search.begin),
                    net.register_forward_hook(search.end, always_call=True),
                    net.register_load_state_dict_pre_hook(search.loading),
                    net.register_load_state_dict_post_hook(search.loaded)]
    setattr(net, ATTRIBUTE, search)


@torch._disable_dynamo
def look_once(net: nn.Module, *inputs: object) -> None:
    """Forward pre-hook of an attached network: before it is trained for the first time, a plain copy of it is looked at with the
    inputs of that pass. A UsageError if a product gets something else than the weight of its layer."""
    search = getattr(net, ATTRIBUTE)
    if not search.looked and not (net.training and torch.is_grad_enabled()):
        return
    if not search.looked and (plain := _copied(net)) is not None:
        refuse_seen(without_hooks(plain, net), [layer.spec.name for layer in search.layers], inputs)
    search.looked = True
    search.hooks[0].remove()  # this one; not before it has found nothing


def _copied(net: nn.Module) -> nn.Module | None:
    try:
        return merge(net)
    except Exception:  # of somebody else's __deepcopy__, whatever it may be
        return None


def _try_method(settings: SearchSettings) -> None:
    """A UsageError if the method trains a network that no ticket can hold: tried on a small layer."""
    with torch.random.fork_rng(devices=[]):
        recipe, net = Recipe(er_p=1.0), nn.Linear(5, 7, bias=False, device="cpu")
        search = Search(recipe, settings)
        for name in unasked(search.method):
            raise UsageError(f"method {settings.method} defines {name}(), which no method is asked any more: give a code book, "
                             "codes() and gates(), as popup/search/methods/method.py says")
        attach_layers(net, search, draw_source(recipe, find_layers(net)))
        if search.method.book != METHODS[settings.method](settings).book:
            raise UsageError(f"method {settings.method} has another book each time it is made, and tickets name one: let it be "
                             "one of the class, or follow from the settings")
        for search.progress in (0.0, 0.5, 1.0):
            for words in gate_faults(search, search.training_gates()).values():
                raise UsageError(f"method {settings.method} trains a network that no ticket of it can be: of a layer of 35 edges "
                                 f"{words}")
