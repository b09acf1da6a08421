"""Golden hashes: the edges, weights and first scores that a seed gives. Whoever changes one of these breaks every ticket
that was ever saved: do not edit a hash here, find what moved it.

Edges, signs and scaled signs need integers and correctly rounded square roots only. "normal" and "scores" also go through
scipy's ndtri and float64 products, whose last bit could in principle be another on another platform."""

import hashlib

import pytest

from popup.search.settings import SearchSettings, first_scores
from popup.source.layer_source import draw_layer
from popup.source.layers import Layer
from popup.source.maskable import Sides
from popup.source.recipe import Recipe
from popup.source.streams import Stream

LAYERS = {
    "linear": (0, Layer("1.weight", (256, 64)), 0.2, 0.5),
    "convolution": (7, Layer("features.0.weight", (64, 3, 3, 3)), 0.5, 0.25),
    "dense": (0, Layer("fc.weight", (10, 512)), 1.0, 1.0),
    "transposed": (5, Layer("h.0.attn.c_attn.weight", (64, 192), sides=Sides(192, 64, (), 64, inputs_first=True)), 0.2, 0.5),
    "experts": (6, Layer("mlp.experts.down_proj", (4, 24, 32), sides=Sides(24, 32, (), 32)), 0.3, 0.5),
    "sparse": (123456789, Layer("layer4.1.conv2.weight", (512, 128, 3, 3)), 2.0**-12, 0.5),
}
WHAT = [f"{mask} {kind}" for mask in ("bernoulli", "exact") for kind in ("edges", "signs", "scaled", "normal")] + ["scores"]
GOLDEN = {
    ("linear", "bernoulli edges"): (3269, "5f0565a0b7c40b59d542d6287c845b14b3cea8cb48b0a9e5331cf6933006a95a"),
    ("linear", "bernoulli signs"): (3269, "c2892677e9ee9a71a9f5fd0549ceff9416bf8ccaf50070f5985fe0b24a5aa66b"),
    ("linear", "bernoulli scaled"): (3269, "9fffecf17f7215f1cf484658c2bb4bf2e59c42f759d9dcea04a2132ca119529b"),
    ("linear", "bernoulli normal"): (3269, "048e9b2e02e4251892bc346086a0e9bd3e89cc90acf5e0ce120500c02818721e"),
    ("linear", "exact edges"): (3277, "9b4fc340911cb6ed7eb976d523f3294eecca65f1e8c4a6eb642f4ba615295069"),
    ("linear", "exact signs"): (3277, "878eba2abce44be2a6526677812ad08f077aedc2f0dec085f9614331d67b7aa7"),
    ("linear", "exact scaled"): (3277, "c74390ecabeabf0f7ec15de0440eec134670c456324df42c0166e9ba90e2ef60"),
    ("linear", "exact normal"): (3277, "6b3c107a28a9582fd5bcb58b1503cbff4dd861675b2cead5bc947820f8446852"),
    ("linear", "scores"): (1000, "6ccacba8cff65d9eda53d12907ce9215a603943665efae074ec5b987cd861815"),
    ("convolution", "bernoulli edges"): (880, "7b85dc6f7b940154e977eb19212f28e54fba2a4e113f97c0f448f9b898ed84e7"),
    ("convolution", "bernoulli signs"): (880, "10a4d9493e6241a65fcbf2579532aa6aec1d125f41e0aea7fbd0e0b98b2d4bda"),
    ("convolution", "bernoulli scaled"): (880, "7c5ab24a5d228b8ad5da894c875bd948c7a688c5fbfa34621ed876a552241995"),
    ("convolution", "bernoulli normal"): (880, "ab4b70cd7f91b967e2fb820c1c8a99cbef7ebd359b2de7e7a22dc86f9e60d930"),
    ("convolution", "exact edges"): (864, "b3cdf2147bdd0d691e6318fbec58f59a0b351361c0187a516aa620ebd1d7fda1"),
    ("convolution", "exact signs"): (864, "b2805fa8c0ae9f0c21302e12c2b3f79ad7444746911ddad1477a14a48b1a9230"),
    ("convolution", "exact scaled"): (864, "9860812d2e0bab3c8c7cc6496761c981835c5d029ab4303610490da1ea56ec93"),
    ("convolution", "exact normal"): (864, "c7f8d567e6c4fda94d2ddfa26b4405e15d44760a3d2697b652ae5371f7eba3d7"),
    ("convolution", "scores"): (1000, "cc4f04aa8cb0928c8b4cb21c80b0bddf12f6f45999f2ca00404c04f8f7d00af4"),
    ("dense", "bernoulli edges"): (5120, "03bc19e3b80b294c8817fb3ab4c31eb5ceee476a6dc01da340acbeb9bcad8ae7"),
    ("dense", "bernoulli signs"): (5120, "382cf7c917fec1666582770701a06832738b27261ba74921e47d240501673b12"),
    ("dense", "bernoulli scaled"): (5120, "aeb6495af7e9dd2e6be70a06060ac19ed9693f173321082c8e4f79a845750e24"),
    ("dense", "bernoulli normal"): (5120, "1adcfaf04f0b6bc4e76106a3590849b3da03c3edd753290ce4adef60a5478efc"),
    ("dense", "exact edges"): (5120, "03bc19e3b80b294c8817fb3ab4c31eb5ceee476a6dc01da340acbeb9bcad8ae7"),
    ("dense", "exact signs"): (5120, "382cf7c917fec1666582770701a06832738b27261ba74921e47d240501673b12"),
    ("dense", "exact scaled"): (5120, "aeb6495af7e9dd2e6be70a06060ac19ed9693f173321082c8e4f79a845750e24"),
    ("dense", "exact normal"): (5120, "1adcfaf04f0b6bc4e76106a3590849b3da03c3edd753290ce4adef60a5478efc"),
    ("dense", "scores"): (1000, "cea4d1e1f28d6464ff69202b3e4368eb268cfc15ca51e3c4f8d037fa0dd66bdf"),
    ("transposed", "bernoulli edges"): (2473, "f6659cc194dfd881e8f9389531cf903476858d5ce65a36fdb39156849416f372"),
    ("transposed", "bernoulli signs"): (2473, "fc1da3a919d1901e6d7513cb6506c361a8ba8ed18c0b5b91fcdb88bce5ad87e6"),
    ("transposed", "bernoulli scaled"): (2473, "5f87f6bfaaf7eedd17b26588ce9c6dd733ce3245e494833a886e690a79aa16a7"),
    ("transposed", "bernoulli normal"): (2473, "e810ca5ba8745ca812d28bb1b388e1596dadd358391cbf06d5545d59a3617da9"),
    ("transposed", "exact edges"): (2458, "815e0d05568daa68359dd9df4e6dc08b1b4fbe6a3868bb691bc98f3febd1e262"),
    ("transposed", "exact signs"): (2458, "dae4680a6a1a840f4e1187d69ba2cafeae32ccee6054162dd2eead82b8c5a741"),
    ("transposed", "exact scaled"): (2458, "733db4498e86a972a316f6470c606a1aef0cd01ffb49e5614562e420fee7eb2f"),
    ("transposed", "exact normal"): (2458, "77a58a4e9ad09efab1c0057f8b4f19848c4a1a47b5ad9b20f5a46b2babcf098b"),
    ("transposed", "scores"): (1000, "c9b6b47cd6aad72cdec99cde813e49625894854a58aea9a127e06c93b94cf9fc"),
    ("experts", "bernoulli edges"): (916, "b228f7fed4326701a3aa47e1aeb7e590b1eb3c45da27970d43bce8a20fc70a9c"),
    ("experts", "bernoulli signs"): (916, "f81a21a625f8439327171d8fdcdffa87d6f3497b1dc82f91f413c9054580da84"),
    ("experts", "bernoulli scaled"): (916, "d831503c59299d0deb9b4af5556e9b3b023c1d88b4c833c4f1020c29f28be26d"),
    ("experts", "bernoulli normal"): (916, "8a5e84515cd4da68b892f781a3e04d3c496b254d79a5ae2aefc2f250cd88777c"),
    ("experts", "exact edges"): (922, "74ce19688a0f3084f886cd3ad96cc8f6dea1eee1d13030a962b3b57671bf89e5"),
    ("experts", "exact signs"): (922, "3262d254a263bb5271a0d2d0bcc9434615885dd9841477bc77dadb396b7440d2"),
    ("experts", "exact scaled"): (922, "ed3d80aab91d7b84b480c25caaae1e2922718280297e0079a26757d38b894ca1"),
    ("experts", "exact normal"): (922, "841fd52de7db7ac79c39f61e0bec3a87090dc076b15f0b38cece1b2f626f7500"),
    ("experts", "scores"): (1000, "fd57c75cc8861c873e9c3df130b49f741d933186606c50e594e25b917486fd2b"),
    ("sparse", "bernoulli edges"): (140, "f57c84c46e4a3728e2226af4b3f631309a3ed2fed366df9420ee502c249f627f"),
    ("sparse", "bernoulli signs"): (140, "8debb91512db55bf76b2a7c13a1f1a9cb1d77914320b50771d89f7e11aa08cc2"),
    ("sparse", "bernoulli scaled"): (140, "11a14f9e990f894b49f235ec265c48ac98c6a077fd667eae773c6aa7b5a777a2"),
    ("sparse", "bernoulli normal"): (140, "79533bb6362c9f78bc7184c52b68faa239f5e52b3ae7e20ac9d0ae3b06902b68"),
    ("sparse", "exact edges"): (144, "e8e1a290be57c9445e1edbad6132f420491b03d64f6285488e0810bb89c38358"),
    ("sparse", "exact signs"): (144, "8cdc5a89e5fee565aef657ad2fb11b6ff858f5c1dfb1f233c9c49311eb4bd567"),
    ("sparse", "exact scaled"): (144, "236f59efe29361477277080706627bcb0a5109b0b8bf5eb133c8365258db4d9e"),
    ("sparse", "exact normal"): (144, "a25d8a9ec62332db3d686ee65f5a47b385bc939b4d08a240f997f9ec1e3aca54"),
    ("sparse", "scores"): (1000, "928b88a2573134542dafc96e69afe76e5263d1bc2b5c869aeb8ab5b04612dedc"),
}


def array(case, what):
    """The array of one case that is hashed."""
    seed, layer, p, k = LAYERS[case]
    if what == "scores":
        return first_scores(SearchSettings(), seed, layer, 1000, 0.5)
    mask, _, kind = what.partition(" ")
    weights = "kaiming_normal" if kind == "normal" else "signed_constant"
    source = draw_layer(Recipe(seed=seed, k=k, mask=mask, weights=weights), layer, p)
    return {"edges": source.edges, "signs": source.values > 0, "scaled": source.values, "normal": source.values}[kind]


@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize("case", LAYERS)
def test_what_a_seed_gives_never_moves(case, what):
    drawn = array(case, what)
    digest = hashlib.sha256(drawn.astype(drawn.dtype.newbyteorder("<")).tobytes()).hexdigest()
    assert (len(drawn), digest) == GOLDEN[case, what]


def test_words_of_a_stream_never_move():
    words = [14736417261169810296, 12086683270021719068, 8028755441500442172]
    assert Stream(0, "edges", "1.weight").words64(3).tolist() == words
