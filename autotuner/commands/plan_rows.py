"""One run of a plan, here or on another machine: what it would do, and what that leaves to those after it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from autotuner.commands.plan_prices import Told
from autotuner.commands.plan_reading import Here, Reading, place_of
from autotuner.environment import Environment
from autotuner.errors import AutotuneError
from autotuner.record_mapping import owner_runs_still, stands, to_take_up
from autotuner.search.gain_model import Tried, outlooks, settled
from autotuner.search.scoring import judge
from autotuner.search.space import SearchSpace
from autotuner.store import Store, Subject
from autotuner.tuning.costs import Costs
from autotuner.tuning.measuring import MeasuringPlan
from autotuner.tuning.planned import Place, Standing, Work, work_of
from autotuner.tuning.request import TuneRequest
from storage.errors import StorageError
from storage.records import PromotionRecord
from storage.survey import TrialRow
from toto_core.model_folder import CheckpointError
from toto_core.prices.options import PriceSource
from toto_core.settings import RuntimeSettings

Replays = Callable[[TuneRequest], tuple[TuneRequest, MeasuringPlan]]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A symbol that a plan is about, with a request for each model; ``due`` says why it is due.

    Without requests it is not.
    """

    symbol: str
    requests: tuple[TuneRequest, ...]
    due: str | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One run of a plan: what it would do, or in ``fault`` why it would fail; neither where it is not due.

    ``goes_on`` is the run that it would go on with; ``busy`` says that somebody tunes the symbol now. ``bytes`` is
    what its builds leave on disk.
    """

    symbol: str
    request: TuneRequest | None = None
    due: str | None = None
    champion: str | None = None
    goes_on: str | None = None
    busy: bool = False
    prices: Told | None = None
    work: Work | None = None
    fault: str | None = None
    bytes: int = 0


class Planner:
    """A plan being made; remembers what is the same for many symbols, and what their runs leave to those after."""

    def __init__(self, reading: Reading, replays: Replays | None) -> None:
        self.reading = reading
        self._replays = replays
        self._follows: dict[object, str] = {}
        self._works: dict[object, Work] = {}
        self._built: dict[object, frozenset[RuntimeSettings]] = defaultdict(frozenset)
        self._tell: dict[tuple[str, PriceSource], Told] = {}

    def row(
        self, asked: Asked, request: TuneRequest, environment: Environment, there: Environment | None
    ) -> Row:
        """What one run would do, here or ``there``."""
        row = Row(symbol=asked.symbol, request=request, due=asked.due)
        try:
            return self._row(row, request, environment, there)
        except StorageError:
            raise
        except (AutotuneError, CheckpointError, ValueError) as error:
            return replace(row, fault=" ".join(str(error).split()))

    def _row(
        self, row: Row, request: TuneRequest, environment: Environment, there: Environment | None
    ) -> Row:
        replayed = None
        if self._replays is not None:
            request, replayed = self._replays(request)
        reading, symbol = self.reading, request.symbol
        model = reading.measurable(request.workload, request.device, there).model
        subject = Subject(
            symbol=symbol,
            workload=request.workload,
            environment=environment,
            series_digest="",
            model_digest=model.digest,
        )
        signature = reading.signature(request.workload)
        group = signature, environment.fingerprint, request.profile.name
        tried = reading.trials(signature, environment.fingerprint, model.digest).get(symbol, ())
        told = self._told(request, tried, reading.champions.get((symbol, group)), there)
        if told.fault is not None:
            return replace(row, prices=told, fault=told.fault)
        unfinished = reading.unfinished.get((symbol, group), [])
        _, goes_on = to_take_up(unfinished, subject.study, resume=request.resume)
        record = reading.champions.get((symbol, group))
        compiled_for = signature, environment.fingerprint, model.digest
        champion = None if record is None else self._settings(record.settings_json, symbol)
        run_id = None if goes_on is None else goes_on.run_id
        known = (reading.settings(each.settings_json) for each in tried if stands(each, told.digest, run_id))
        standing = Standing(
            known=frozenset(settings for settings in known if settings is not None),
            champion=champion,
            elsewhere=reading.winners(subject),
            follows=self._follows.get((group, model.digest)),
            built=self._built[compiled_for],
        )
        if replayed is None:
            here = place_of(reading, request, subject, there)
        else:
            here = _replaying(reading, request, replayed)
        subject = replace(subject, series_digest=told.digest)
        work = self._work(request, here, standing, subject, run_id)
        if work.builds:
            self._built[compiled_for] |= work.builds
        if work.does == "search":
            self._follows.setdefault((group, model.digest), symbol)
        return replace(
            row,
            champion=None if champion is None else champion.label,
            goes_on=run_id,
            busy=any(run.status == "running" and owner_runs_still(run) for run in unfinished),
            prices=told,
            work=work,
            bytes=len(work.builds) * here.bytes,
        )

    def _told(
        self,
        request: TuneRequest,
        tried: Sequence[TrialRow],
        champion: PromotionRecord | None,
        there: Environment | None,
    ) -> Told:
        """The prices; what another machine has is not known here, so that they are taken to be the same."""
        asked = request.symbol, request.prices
        if there is None or asked not in self._tell:
            self._tell[asked] = self.reading.prices.of(request, tried, champion)
        return self._tell[asked]

    def _settings(self, text: str, symbol: str) -> RuntimeSettings:
        found = self.reading.settings(text)
        if found is None:
            raise AutotuneError(
                f"what is promoted for {symbol} cannot be read; `autotune rollback {symbol}` takes it out of use"
            )
        return found

    def _work(
        self, request: TuneRequest, here: Here, standing: Standing, subject: Subject, run_id: str | None
    ) -> Work:
        """As ``work_of``, once for all symbols that stand alike."""
        profile = request.profile
        found = self.reading.proofs(replace(subject, symbol="-", series_digest=""), profile.name)
        others = tuple(each for each in found if each.symbol != request.symbol)
        asked = profile, request.trials, request.seconds, request.reuse, request.share, request.limits
        alike = id(here.place), asked, standing, tuple(each.promotion_id for each in others)
        if alike in self._works and self._replays is None:
            return self._works[alike]
        weighed = False

        def nothing_left() -> bool:
            nonlocal weighed
            weighed = True
            return _settled(self.reading.store, subject, request, here.place, run_id)

        work = work_of(request, here.place, standing, others, nothing_left)
        if not weighed:
            self._works[alike] = work
        return work


def _replaying(reading: Reading, request: TuneRequest, plan: MeasuringPlan) -> Here:
    """Recorded answers, which cost nothing."""
    place = Place(
        space=plan.space, costs=Costs(), at_hand=plan.holds, slots=1, weights_bytes=0, seconds=plan.seconds
    )
    return Here(measurable=reading.measurable(request.workload, request.device), place=place)


def _settled(store: Store, subject: Subject, request: TuneRequest, place: Place, run_id: str | None) -> bool:
    """Whether a search that begins with all this known has nothing left to try, as the search itself asks."""
    space: SearchSpace = place.space
    tried = {}
    for settings, outcome in store.known(subject, run_id=run_id).items():
        judged = judge(outcome, request.workload, request.profile, request.limits)
        tried[space.canonical(settings)] = Tried(score=judged.score, feasible=judged.feasible)
    untried = [key for key in space.keys if key not in tried]
    if not untried:
        return True
    compiled = frozenset(settings for settings in space.keys if settings.compiled and place.at_hand(settings))
    device = "cpu" if space.facts is None else space.facts.device
    return settled(outlooks(untried, tried, compiled=compiled, device=device), request.chance)
