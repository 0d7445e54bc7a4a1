"""The house: a wing stands only on those below it, and admin, api and ops do not know of each other."""
import ast
from importlib.util import resolve_name

from conftest import SERVICE

# From the bottom. The models stand on rooms of the wings above, which themselves need no models.
FLOORS = [["base"], ["settings"], ["calls.queryset", "calls.template", "schedules.recurrence"], ["models"], ["calls"], ["schedules"],
          ["site"], ["admin", "api", "ops"], ["files"],
          ["tasks", "urls", "wsgi", "celery", "management", "migrations", "formats"], ["__init__"]]
PLACES = {wing: floor for floor, wings in enumerate(FLOORS) for wing in wings}


def wing(module):
    """What of FLOORS the module is of: "calls" for "scheduler.calls.ledger"."""
    _, name, *rest = module.split(".")
    known = [wing for wing in (f"{name}.{'.'.join(rest[:1])}", name) if wing in PLACES]
    assert known, f"{module} is in no wing"
    return known[0]


def test_no_wing_reaches_upward():
    reaches = set()
    for path in (SERVICE / "scheduler").rglob("*.py"):
        package = ".".join(path.relative_to(SERVICE).parent.parts)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                source = resolve_name("." * node.level + (node.module or ""), package)
                reaches |= {(f"{package}.{path.stem}", f"{source}.{alias.name}") for alias in node.names
                            if source.split(".")[0] == "scheduler"}
    assert len(reaches) > 100
    for own, other in sorted(reaches):
        assert wing(own) == wing(other) or PLACES[wing(own)] > PLACES[wing(other)], f"{own} imports {other}"
