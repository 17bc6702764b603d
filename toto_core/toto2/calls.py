"""The two calls that a forecast of Toto 2.0 is made of, run as the settings say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from toto_core.compiling.ahead import PackageStore
from toto_core.compiling.running import RunningCalls, never_move
from toto_core.settings import RuntimeSettings
from toto_core.toto2.decode import Decoder, LayerOps
from toto_core.toto2.passes import Carry, Context, Fed, FirstBlock, KnownTokens, NextBlock, Place, Plan
from toto_core.toto2.scaling import Running, Stats

_TENSOR: Any = 0  # stands for a tensor in a template
_STATS = Stats(_TENSOR, _TENSOR, _TENSOR)


class Toto2Calls(RunningCalls):
    """``Decoder.first`` and ``.following`` of one decoder under one configuration, with what compiling them did."""

    def __init__(
        self, decoder: Decoder, settings: RuntimeSettings, packages: PackageStore | None = None
    ) -> None:
        super().__init__(decoder, decoder.blank.device, settings, packages)
        self._decoder = decoder
        self._kept: dict[tuple[Any, ...], Carry] = {}

        def first(context: Context, plan: Plan) -> FirstBlock:
            return decoder.first(context, plan)

        def following(fed: Fed, carry: Carry, place: Place, plan: Plan) -> NextBlock:
            return decoder.following(fed, carry, place, plan)

        self._first: Callable[..., FirstBlock] = self._whole(first)
        self._following: Callable[..., NextBlock] = self._whole(following)
        self._ops = LayerOps(**self._layers(vars(LayerOps())))

    def begin(self) -> None:
        """Begin a model call: nothing that earlier ones returned is read any more.

        A decoder may have other calls beside these, with other repeated layers.
        """
        self._decoder.ops = self._ops
        self._begin()

    def first(self, context: Context, plan: Plan) -> FirstBlock:
        """``Decoder.first`` under the settings."""

        def call(context: Context) -> FirstBlock:
            return self._first(context, plan)

        parts = (context.observed, context.groups, context.known, context.pad_patches)
        variant = (plan, *(part is None for part in parts))
        begun = self._run("first", variant, call, _first_template(self._decoder, context, plan), (context,))
        if begun.carry is None or not self._records_graphs:
            return begun
        return begun._replace(carry=self._in_place(begun.carry))

    def following(self, fed: Fed, carry: Carry, place: Place, plan: Plan) -> NextBlock:
        """``Decoder.following`` under the settings; the caches of ``carry`` are written."""

        def call(fed: Fed, carry: Carry, place: Place) -> NextBlock:
            return self._following(fed, carry, place, plan)

        parts = (carry.visible, carry.same_group, carry.limits, place.pad_patches, fed.known)
        variant = (plan, *(part is None for part in parts))
        template = NextBlock(_TENSOR, _running_template(plan))
        return self._run("next", variant, call, template, (fed, carry, place))

    def _in_place(self, carry: Carry) -> Carry:
        """The same, its caches copied to where those of their shape always are.

        CUDA graphs write to fixed addresses, and torch records none that writes into an input it believes may move.
        """
        shape = (carry.keys[0].shape, carry.keys[0].dtype) if carry.keys else ()
        if shape not in self._kept:
            mine = carry._replace(
                keys=tuple(each.clone() for each in carry.keys),
                values=tuple(each.clone() for each in carry.values),
            )
            never_move((*mine.keys, *mine.values))
            self._kept[shape] = mine
        kept = self._kept[shape]
        for place, new in zip((*kept.keys, *kept.values), (*carry.keys, *carry.values), strict=True):
            place.copy_(new)
        return carry._replace(keys=kept.keys, values=kept.values)


def _running_template(plan: Plan) -> Running:
    return Running(_STATS, _STATS if plan.min_observed > 0 else None)


def _first_template(decoder: Decoder, context: Context, plan: Plan) -> FirstBlock:
    """The form of what ``Decoder.first`` returns."""
    if plan.later == 0:
        return FirstBlock(_TENSOR, None, None, None)
    caches = (_TENSOR,) * decoder.time_layers
    rows = context.series.shape[1] + (0 if context.known is None else context.known.values.shape[1])
    carry = Carry(
        caches,
        caches,
        _TENSOR if plan.masked else None,
        _TENSOR if rows > 1 and (plan.masked or context.groups is not None) else None,
        (_TENSOR, _TENSOR) if plan.cap > 0.0 else None,
    )
    known = None if context.known is None else KnownTokens(_TENSOR, _TENSOR)
    return FirstBlock(_TENSOR, _running_template(plan), carry, known)
