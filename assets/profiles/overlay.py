"""A profile put over params.yaml: what it names changes, all else stays, comments and order too. What a setting means: assets/params.py.

The rule: mappings merge key by key; one with another `source` or `kind` than before is replaced; so is every list and plain value.
`key+` adds to the list `key` what it lacks; `key-` takes from the list or mapping `key` what is named.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedBase, CommentedMap, CommentedSeq
from ruamel.yaml.error import CommentMark, YAMLError
from ruamel.yaml.representer import RoundTripRepresenter
from ruamel.yaml.tokens import CommentToken

from assets import artifacts
from assets.errors import UserError
from assets.params import PARAMS_FILE, Params, checked_params

FOLDER = Path(__file__).parent
VARIANT_KEYS = ("source", "kind")  # they decide which other keys a mapping has


class _Representer(RoundTripRepresenter):
    """Writes null as a word, as people do in params.yaml."""


_Representer.add_representer(type(None), lambda self, _: self.represent_scalar("tag:yaml.org,2002:null", "null"))


def profiles() -> dict[str, Path]:
    """The profiles' files by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


def with_profile(name: str, params_file: Path = PARAMS_FILE) -> tuple[str, Params, list[str]]:
    """(params.yaml's text with a profile's values in it, the same typed, one line for each change).

    Raises UserError for an unknown profile, and for values that do not fit into params.yaml as it is. Nothing is written.
    """
    known = profiles()
    if name not in known:
        raise UserError(f"given profile {name!r}; known are {', '.join(known)}.")
    settings, overlay = _load(params_file), _load(known[name])
    changes = list(_merge(settings, overlay, ()))
    written = io.StringIO()
    _yaml().dump(settings, written)
    params = checked_params(YAML(typ="safe", pure=True).load(written.getvalue()), f"{params_file} with {known[name].name}")
    return written.getvalue(), params, changes


def use(name: str, params_file: Path = PARAMS_FILE) -> list[str]:
    """Write a profile's values into params.yaml; returns one line for each change. Raises as `with_profile` does, before it writes."""
    text, _, changes = with_profile(name, params_file)
    if changes:
        with artifacts.replacing(params_file) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return changes


def _yaml() -> YAML:
    yaml = YAML()
    yaml.Representer = _Representer
    yaml.width, yaml.preserve_quotes = 10_000, True
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def _load(path: Path) -> CommentedMap:
    try:
        loaded = _yaml().load(path)
    except FileNotFoundError:
        raise UserError(f"no {path} in {Path.cwd()}. Run from the checkout's top folder.") from None
    except YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(loaded, CommentedMap):
        raise UserError(f"{path} must hold sections of settings.")
    return loaded


def _merge(settings: CommentedMap, overlay: Mapping[str, Any], inside: tuple[str, ...]) -> Iterator[str]:
    """Change `settings` in place; yields what changes."""
    for key, new in overlay.items():
        if key[-1] in "+-" and isinstance(settings.get(key[:-1]), CommentedSeq | CommentedMap):
            yield from _add_or_take(settings, key, new, (*inside, key[:-1]))
            continue
        old = settings.get(key)
        where = (*inside, str(key))
        if isinstance(old, CommentedMap) and isinstance(new, Mapping) and not _other_variant(old, new):
            yield from _merge(old, new, where)
        elif key not in settings or old != new:
            yield f"{'.'.join(where)}: {_short(old) if key in settings else 'absent'} → {_short(new)}"
            after = _take_what_follows(settings, key)
            settings[key] = new
            _give_what_follows(settings, key, after)


def _add_or_take(settings: CommentedMap, key: str, named: Sequence[str], inside: tuple[str, ...]) -> Iterator[str]:
    """As `_merge`, for a key that ends in + or -."""
    name, where = key[:-1], ".".join(inside)
    held = settings[name]
    if isinstance(held, CommentedMap):
        for row in [each for each in named if each in held]:
            yield f"{where}.{row}: {_short(held[row])} → absent"
            _remove(held, row)
        return
    wanted = [*held, *(each for each in named if each not in held)] if key[-1] == "+" else [each for each in held if each not in named]
    if wanted == held:
        return
    yield f"{where}: {_short(held)} → {_short(wanted)}"
    after = _take_what_follows(settings, name)
    for place in reversed(range(len(held))):
        if held[place] not in wanted:
            del held[place]
    held.extend(wanted[len(held) :])
    _give_what_follows(settings, name, after)


def _remove(holder: CommentedMap, key: str) -> None:
    """Delete a value and the comment on its line; the lines after it stay."""
    after = _take_what_follows(holder, key)
    keys = list(holder)
    place = keys.index(key)
    del holder[key]
    if after and place:
        before = keys[place - 1]
        _give_what_follows(holder, before, _take_what_follows(holder, before) + after)


def _other_variant(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    return any(name in new and old.get(name) != new[name] for name in VARIANT_KEYS)


def _short(value: Any) -> str:
    """A value on one line; a mapping with variants by its variant alone."""
    if isinstance(value, Mapping):
        shown = [name for name in VARIANT_KEYS if name in value] or list(value)
        return f"{{{', '.join(f'{name}: {_short(value[name])}' for name in shown)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_short, value))}]"
    return json.dumps(value, ensure_ascii=False)


# ruamel hangs what follows a value (the rest of its line, blank lines, comments before the next key) on the value's last leaf, so it would
# go with a value that is replaced.


def _last_leaf(holder: CommentedBase, key: Any) -> tuple[Any, Any]:
    """The container and key that hold what follows `holder[key]`."""
    value = holder[key]  # type: ignore[index]
    if isinstance(value, CommentedMap) and value and not value.fa.flow_style():
        return _last_leaf(value, next(reversed(value)))
    if isinstance(value, CommentedSeq) and value and not value.fa.flow_style():
        return _last_leaf(value, len(value) - 1)
    return holder, key


def _slot(holder: Any) -> int:
    return 2 if isinstance(holder, CommentedMap) else 0


def _take_what_follows(holder: CommentedMap, key: str) -> str:
    """Lines after the line of the value's end; they are taken from it. For a new key: after the last value, for it comes after that."""
    if key not in holder:
        if not holder:
            return ""
        key = next(reversed(holder))
    leaf, name = _last_leaf(holder, key)
    comment = leaf.ca.items.get(name)
    token = comment[_slot(leaf)] if comment else None
    if token is None:
        return ""
    rest, newline, after = token.value.partition("\n")
    token.value = rest + newline
    return after


def _give_what_follows(holder: CommentedMap, key: str, after: str) -> None:
    leaf, name = _last_leaf(holder, key)
    comment = leaf.ca.items.get(name)
    token = comment[_slot(leaf)] if comment else None
    if token is not None:
        token.value = token.value.partition("\n")[0] + "\n" + after
        token.start_mark = CommentMark(0)  # else it keeps its column, as if the value had its old width
    elif after:
        token = CommentToken("\n" + after, CommentMark(0))
        leaf.ca.items[name] = [None, None, token, None] if isinstance(leaf, CommentedMap) else [token, None]
