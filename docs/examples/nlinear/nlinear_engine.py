"""NLinear (Zeng and others, 2023, arXiv:2205.13504) as an engine: one matrix from the last prices to the next."""

from safetensors.torch import load_file
from torch import nan_to_num, nn

from autotuner.engines.module_engine import ModuleEngine
from autotuner.engines.module_pipeline import ModulePipeline


class Pipeline(ModulePipeline):
    def __init__(self, module, spread, settings, device):
        super().__init__(module, settings, device)
        self.spread = spread.to(device)  # (level, step): what the model was wrong by, as a share of price

    def quantiles(self, contexts, steps):
        last = contexts[..., -1:]
        shifted = nan_to_num(contexts[..., -self.patch_size :] / last - 1.0)
        moved = self.module(shifted)[..., None, :steps]
        return last[..., None] * (1.0 + moved + self.spread[:, :steps])


class NLinear(ModuleEngine):
    name = "nlinear"

    def knows(self, config):
        return config.get("family") == "nlinear"

    def shortest_context(self, config):
        return config["context"]

    def pipeline(self, folder, config, settings, device):
        weights = load_file(folder / "model.safetensors")
        module = nn.Linear(config["context"], config["horizon"], bias=False)
        module.load_state_dict({"weight": weights["weight"]})
        made = Pipeline(module, weights["spread"], settings, device)
        made.patch_size = config["context"]
        return made
