"""Names for containers whose maker gave none: a quality and an animal."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Final

_QUALITIES: Final = (
    "able agile amber bold brave breezy bright brisk calm candid clever cosy crisp curious "
    "daring deft eager early fair fleet fond frank gentle glad golden grand happy hardy hazel "
    "humble jolly keen kind lively lucky mellow merry mild modest neat nimble noble patient "
    "placid plucky polite proud quick quiet ready robust rosy serene silver smart snug sober "
    "steady sunny swift tidy tranquil upbeat vivid warm wise witty young zesty"
).split()
_ANIMALS: Final = (
    "adder alpaca badger bear beaver bison bittern bream buzzard camel carp cod condor coot "
    "crane crow curlew deer dipper dove duck eagle eel egret elk falcon ferret finch fox frog "
    "gannet gecko goose grouse gull hare hawk heron hornet ibex ibis jackdaw jay kestrel kite "
    "koala lark lemur linnet lizard llama lynx magpie marten mole moose moth newt nuthatch "
    "orca osprey otter owl panda perch pike pipit plover puffin puma quail rail raven robin "
    "rook ruff salmon seal shrew siskin skua sloth snipe sparrow stoat stork swan swift tapir "
    "teal tern thrush toad trout turtle viper vole weasel whale wolf wren yak zebra"
).split()


def generate(taken: Collection[str]) -> str:
    """Return a name that is not in ``taken``."""
    for _ in range(100):
        quality = _QUALITIES[int.from_bytes(os.urandom(4)) % len(_QUALITIES)]
        animal = _ANIMALS[int.from_bytes(os.urandom(4)) % len(_ANIMALS)]
        name = f"{quality}_{animal}"
        if name not in taken:
            return name
    return f"{name}_{os.urandom(4).hex()}"
