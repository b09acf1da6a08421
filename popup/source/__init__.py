"""The frozen random network: named streams, layerwise densities, ER masks, frozen weights, code books."""

from popup.source.densities import DENSITIES, layer_densities, total_density
from popup.source.layer_source import draw, draw_layer
from popup.source.layers import Layer, find_layers
from popup.source.recipe import Recipe
from popup.source.saliency import snip, synflow
from popup.source.streams import Stream

__all__ = ["DENSITIES", "Layer", "Recipe", "Stream", "draw", "draw_layer", "find_layers", "layer_densities",
           "snip", "synflow", "total_density"]
