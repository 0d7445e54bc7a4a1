"""YAML, as the files have it: what JSON has, in a form for people.

What is a flag, a number or null goes by YAML 1.2 (10.3, the core schema; numbers are those of JSON, so 007 is text). PyYAML
by itself goes by YAML 1.1, to which `on` and `no` are flags, 12:30:00 is a number and 2026-12-25 a date.
"""
import math
import re

import yaml

VALUES_MAX = 200_000        # in one file, as they stand there and as they are used: few aliases can stand for billions
TOO_MANY = f"There are more than {VALUES_MAX} values in it."
TAG = "tag:yaml.org,2002:"
NUMBER = r"-?(?:0|[1-9][0-9]*)"
PLAIN = {"null": ("~|null|Null|NULL|", "~nN"), "bool": ("true|True|TRUE|false|False|FALSE", "tTfF"),
         "int": (NUMBER, "-0123456789"), "float": (NUMBER + r"(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?", "-0123456789")}
IN_ONE_LINE = 100           # characters of a list that is not given a line for each
CANNOT_SHOW = re.compile(r"[^\n\x20-\x7e]")


class Wrong(Exception):
    """What keeps a file from being applied: `problems`, a list of sentences for a person."""

    def __init__(self, problems):
        super().__init__("\n".join(problems))
        self.problems = problems


class Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {}
    left = VALUES_MAX

    def compose_node(self, parent, index):
        """As PyYAML does, which has no end: of ten million bytes it could make gigabytes, in minutes."""
        if index is not None:       # else it is a key, or the whole
            self.left -= 1
        if self.left < 0:
            raise _Refused(self.peek_event(), TOO_MANY)
        return super().compose_node(parent, index)


class Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers = {}

    def ignore_aliases(self, data):
        return True

    def increase_indent(self, flow=False, indentless=False):
        return super().increase_indent(flow, False)     # of a list in a mapping too


for _class in (Loader, Dumper):
    for _tag, (_pattern, _first) in PLAIN.items():
        _class.add_implicit_resolver(TAG + _tag, re.compile(f"(?:{_pattern})$"), [*_first, *([""] if _tag == "null" else [])])


def _text(dumper, text):
    hidden = any(not c.isprintable() and c != "\n" for c in text)      # among them what turns the direction of reading
    return dumper.represent_scalar(TAG + "str", text, style='"' if hidden else "|" if "\n" in text else None)


def _list(dumper, value):
    flat = not any(isinstance(part, (dict, list)) for part in value)
    return dumper.represent_sequence(TAG + "seq", value, flow_style=flat and len(str(value)) <= IN_ONE_LINE)


def _mapping(dumper, value):
    return dumper.represent_mapping(TAG + "map", value, flow_style=not value or list(value) == ["env"])


Dumper.add_representer(str, _text)
Dumper.add_representer(list, _list)
Dumper.add_representer(dict, _mapping)


def write(value):
    """The YAML of a value of JSON: str, the same for the same value."""
    text = yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=math.inf)
    # Such characters stand between double quotes only.
    return CANNOT_SHOW.sub(lambda match: match[0] if match[0].isprintable() else f"\\U{ord(match[0]):08X}", text)


def read(data, name):
    """What the YAML in `data`, the bytes of a file called `name`, says.

    Returns (its value, as of JSON, {path: the number of its line}); a path is a tuple of keys and positions. Raises Wrong.
    """
    lines = {}
    try:
        loader = Loader(data)
        node = loader.get_single_node()
        return (_Reading(lines).value(node, ()) if node else None), lines
    except yaml.reader.ReaderError as error:
        what = (f"U+{error.character:04X} stands in it, which YAML does not take" if error.encoding == "unicode"
                else "it is no text in UTF-8")
        raise Wrong([f"{name}: This is no YAML: {what}."]) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise Wrong([f"{name}, line {mark.line + 1}: This is no YAML: {error.problem or error.context}."]) from None
    except RecursionError:
        raise Wrong([f"{name}: It is nested too deeply."]) from None
    except _Refused as error:
        raise Wrong([f"{name}, line {error.line}: {error}"]) from None


class _Refused(Exception):
    def __init__(self, node, words):
        super().__init__(words)
        self.line = node.start_mark.line + 1


class _Reading:
    """One walk through a file's nodes. PyYAML's own lets the second of two equal keys win."""

    def __init__(self, lines):
        self.lines, self.left = lines, VALUES_MAX

    def value(self, node, path):
        self.left -= 1
        if self.left < 0:
            raise _Refused(node, TOO_MANY)
        self.lines.setdefault(path, node.start_mark.line + 1)
        kind = node.tag.removeprefix(TAG)
        if isinstance(node, yaml.MappingNode) and kind == "map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and kind == "seq":
            return [self.value(part, (*path, i)) for i, part in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and kind == "str":
            return node.value
        if not isinstance(node, yaml.ScalarNode) or kind not in PLAIN or not re.fullmatch(PLAIN[kind][0], node.value):
            raise _Refused(node, "It holds a tag (!), which means nothing here.")
        try:
            return {"null": lambda text: None, "bool": lambda text: text.lower() == "true", "int": int, "float": float}[kind](node.value)
        except ValueError:
            raise _Refused(node, "It holds a number that is too large.") from None

    def _mapping(self, node, path):
        found = {}
        for key, part in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _Refused(key, "A key must be a text.")
            if key.value in found:
                raise _Refused(key, f"The key {key.value[:80]!r} stands twice.")
            self.lines[(*path, key.value)] = key.start_mark.line + 1
            found[key.value] = self.value(part, (*path, key.value))
        return found
