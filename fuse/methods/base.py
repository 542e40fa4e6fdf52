"""What a method declares about itself without importing torch: options, presets, known failures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

if TYPE_CHECKING:
    from ..config import FuseConfig
    from ..models.interface import FusionModel


class Options(BaseModel):
    """Options of one method, given as `--set model.NAME=VALUE`; frozen, unknown names refused.

    A method declares its own as a subclass: fields with a type, a default, a range and a
    description. Every choice of every field is tested by being there.

    Attributes:
        presets: By name, values of options: `reference` is what the published fusion code
            computes, minus crashes; `original` the method's own publication. `options` inside of a
            preset holds values of these options, everything else is an option of a run.
        violates: What a preset (or one choice, `NAME=VALUE`) is known not to fulfil: by its name
            the checks of `models.conformance` with the reason, each a strict expected failure.
        unread: General options that the method does not read; giving one is refused.
        small: Values of these options that keep the checks cheap; sizes, nothing else.
        later: Options that came after runs were recorded without them. A record leaves them out at
            their defaults, so that such a run keeps its name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    violates: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    unread: ClassVar[tuple[str, ...]] = ()
    small: ClassVar[Mapping[str, Any]] = {}
    later: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _as_recorded(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = serialize(self)
        fields = type(self).model_fields
        unsaid = [name for name in self.later if content.get(name) == fields[name].default]
        return {name: value for name, value in content.items() if name not in unsaid}

    def candidates(self) -> int:
        """Solutions that validation chooses from, of a method that is fitted as a whole.

        0, the default, says that the method is trained in epochs.
        """
        return 0

    @classmethod
    def of(cls, config: FuseConfig) -> Self:
        """Take the options of a configuration, which are of this kind."""
        options = config.options
        return options if isinstance(options, cls) else cls.model_validate(options.model_dump())


class NoHead(Options):
    """No options of its own, and no hidden layer in the fusion."""

    unread: ClassVar[tuple[str, ...]] = ("fusion_hidden",)


class Recorded(Options):
    """Options of a method whose source is not at hand, as a run recorded them."""

    model_config = ConfigDict(frozen=True, extra="allow")


@dataclass(frozen=True)
class Method:
    """One entry of the registry.

    Attributes:
        home: Module below `fuse.models` and class of the network, `module:Class`.
        options: What the method declares.
        network: The class itself, of a method that this process has loaded from a file.
    """

    home: str
    options: type[Options] = Options
    network: type[FusionModel] | None = None

    @property
    def presets(self) -> tuple[str, ...]:
        """Names of the presets, the default first."""
        return tuple(dict.fromkeys(("corrected", *self.options.presets)))


__all__ = ["Method", "NoHead", "Options", "Recorded"]
