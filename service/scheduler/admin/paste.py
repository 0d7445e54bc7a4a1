"""What is pasted into the form of new calls: times, or rows of a spreadsheet, with a note and more beside each time."""
import csv
import hashlib
import io
import re
from datetime import datetime
from typing import NamedTuple

from ..base.moments import Ambiguous, days_first, from_person
from ..base.words import printable

SHOWN = 10              # kinds of problems, and numbers of lines, that are named
# What may stand above a column, and what it is then.
COLUMNS = {"time": "time", "timestamp": "time", "when": "time", "due": "time", "date": "date", "note": "note",
           "target": "target", "body": "body", "data": "data"}
NAMED = "time, date, note, target, body, data"
# As a time begins, right or wrong.
DATED = re.compile(r"\d{1,4}([-./])\w+\1 ?\d|\d{1,2}\.?[- ]+[A-Za-z]{3,9}\.?,?[- ]+\d\d|[A-Za-z]{3,9}\.? \d{1,2} \d{4}"
                   r"|\d{8}T|\d{4}-?W\d", re.ASCII | re.IGNORECASE)
AMERICAN = re.compile(r"([A-Za-z]{3,9}\.? \d{1,2}), (\d{4})", re.ASCII)      # whose comma ends no cell


class Row(NamedTuple):
    """A call that is asked for. What is "" is as the form says for all."""

    line: int
    written: str        # its time, as it was pasted
    at: datetime        # aware
    note: str = ""
    target: str = ""    # its name
    body: str = ""
    data: str = ""      # JSON

    @property
    def has_own(self):
        """Whether something is sent with it that is not sent with the others."""
        return bool(self.target or self.body or self.data)


class Problem(NamedTuple):
    """What is wrong with a line: `written` is the piece of it, `why` a clause of which that is the subject. Those of a kind
    are said together, also if their words differ."""

    line: int
    written: str
    why: str
    kind: str = ""      # as `why`, if it is ""


def mark(text):
    """What tells a pasted text, which was looked at, from another: str."""
    return hashlib.sha256("\n".join(text.split("\r\n")).encode()).hexdigest()


def read(text):
    """([Row, ...], [Problem, ...]) of what was pasted. Raises ValueError for a text that is no table at all."""
    lines = _table(text)
    names = [cell.strip().casefold() for cell in lines[0][1]] if lines else []
    if any(name in COLUMNS for name in names):
        columns, lines = _columns(names), lines[1:]
    else:
        columns = {"time": 0, "note": 1}

    def cell(cells, name):
        place = columns.get(name)
        return cells[place].strip() if place is not None and place < len(cells) else ""

    written = [" ".join(filter(None, (cell(cells, "date"), cell(cells, "time")))) for _, cells in lines]
    day_first, rows, problems = days_first(written), [], []
    for (line, cells), when in zip(lines, written):
        if more := [extra for place, extra in enumerate(cells) if place not in columns.values() and extra.strip()]:
            problems.append(Problem(line, more[0], f"stands in a column that has no name: put a line above them with "
                                                   f"what they are, of {NAMED}"))
        elif not when:
            problems.append(Problem(line, " ".join(filter(None, cells)), "has no time"))
        else:
            try:
                at = from_person(when, day_first=day_first)
                rows.append(Row(line, when, at, *(cell(cells, name) for name in ("note", "target", "body", "data"))))
            except ValueError as error:
                problems.append(Problem(line, when, str(error), "date" if isinstance(error, Ambiguous) else ""))
    return rows, problems


def _table(text):
    """[(number of the line, [cell, ...]), ...] of the lines that are not empty."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    between = "\t" if "\t" in text else ";" if ";" in text else ","
    if between == ",":
        text = AMERICAN.sub(r"\1 \2", text)
    found, line = [], 1
    try:
        lines = csv.reader(io.StringIO(text), delimiter=between, skipinitialspace=between != "\t")
        for cells in lines:
            if any(cell.strip() for cell in cells):
                found.append((line, cells))
            line = lines.line_num + 1
    except csv.Error as error:
        raise ValueError(f"cannot be read as a table: {error}") from None
    if between == ",":
        # As it always was: several times on one line.
        pieces = [(line, [cell]) for line, cells in found for cell in cells if cell.strip()]
        if all(DATED.match(cell.strip()) for _, (cell,) in pieces):
            return pieces
    return found


def _columns(names):
    """{what it is: its place} of the columns of these names. Raises ValueError."""
    columns = {}
    for place, name in enumerate(names):
        if name in COLUMNS:
            if COLUMNS[name] in columns:
                raise ValueError(f"has two columns for {COLUMNS[name]}")
            columns[COLUMNS[name]] = place
        elif name:
            raise ValueError(f"has a column “{printable(name, 40)}”, which means nothing here: leave it out, or call it one of {NAMED}")
    if not {"time", "date"} & set(columns):
        raise ValueError("has no column of the name time")
    return columns


def told(problems):
    """The problems as sentences, one for each kind, in the order of the lines in which they come first."""
    kinds = {}
    for problem in sorted(problems, key=lambda problem: problem.line):
        kinds.setdefault(problem.kind or problem.why, []).append(problem)
    said = []
    for some in list(kinds.values())[:SHOWN]:
        sentence = f"Line {some[0].line}: “{printable(some[0].written, 80)}” {some[0].why}."
        if more := list(dict.fromkeys(problem.line for problem in some[1:])):
            numbers = ", ".join(map(str, more[:SHOWN])) + (", …" if len(more) > SHOWN else "")
            sentence += f" So {'is' if len(more) == 1 else 'are'} {len(more)} more: line{'s' if len(more) > 1 else ''} {numbers}."
        said.append(sentence)
    if len(kinds) > SHOWN:
        said.append(f"And {len(kinds) - SHOWN} other kinds of mistakes.")
    return said
