"""``AutotunedPredictor``: GluonTS's predictor, every item forecast by the settings of the symbol it is named."""

# no future annotations: gluonts checks constructor arguments by what they evaluate to

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from gluonts.core.component import validated
from gluonts.model.forecast import SampleForecast
from gluonts.model.predictor import RepresentablePredictor

from autotuner.adapters.sampling import CONTEXT_LENGTH, NUM_SAMPLES, Tuned


class AutotunedPredictor(RepresentablePredictor):
    """Forecasts ``prediction_length`` steps from the last ``context_length`` of every item, by samples.

    An item's ``item_id`` is looked up as its symbol, ``symbol`` where it has none; targets are (time,) or
    (variate, time), NaN where a value is missing. ``model``, ``profile``, ``device``, ``db`` and
    ``hold_compilation`` are those of ``autotuner.load_pipeline``: by default shapes that no tuned workload names
    run eagerly. The same ``seed`` draws the same noise for every item.
    """

    @validated()
    def __init__(
        self,
        prediction_length: int,
        *,
        context_length: int = CONTEXT_LENGTH,
        lead_time: int = 0,
        symbol: str = "",
        model: str | None = None,
        profile: str | None = None,
        device: str = "cpu",
        db: str | None = None,
        hold_compilation: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(prediction_length=prediction_length, lead_time=lead_time)
        self.context_length = context_length
        self.symbol = symbol
        self.seed = seed
        self.tuned = Tuned(
            model=model, profile=profile, device=device, db=db, hold_compilation=hold_compilation
        )

    def predict(
        self, dataset: Iterable[Mapping[str, Any]], num_samples: int = NUM_SAMPLES, **kwargs: Any
    ) -> Iterator[SampleForecast]:
        """A forecast of ``num_samples`` paths for every item, in order. Raises what ``load_pipeline`` raises."""
        for item in dataset:
            yield self.predict_item(item, num_samples)

    def predict_item(self, item: Mapping[str, Any], num_samples: int = NUM_SAMPLES) -> SampleForecast:
        """The forecast of one item; its samples are (sample, time), or (sample, time, variate) for several."""
        target, item_id = np.asarray(item["target"]), item.get("item_id")
        paths = self.tuned.draw(
            self.symbol if item_id is None else str(item_id),
            np.atleast_2d(target),
            steps=self.lead_time + self.prediction_length,
            num_samples=num_samples,
            context_length=self.context_length,
            seed=self.seed,
        )[:, self.lead_time :]
        return SampleForecast(
            samples=paths[..., 0] if target.ndim == 1 else paths,
            start_date=item["start"] + target.shape[-1] + self.lead_time,
            item_id=item_id,
        )
