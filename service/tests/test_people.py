"""Who may do what, as it is given in the admin: three groups, and the permissions that mean something."""
import re

import pytest
from conftest import PASSWORD, guest, make
from django.contrib.auth.models import Group, Permission, User
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.test import Client
from rest_framework.authtoken.models import Token

from scheduler.models import Schedule, Target

GROUPS = ["Viewer", "Operator", "Admin"]
CALLS, TARGETS, SCHEDULES = (f"/admin/scheduler/{model}/" for model in ("scheduledcall", "target", "schedule"))
PEOPLE = ["/admin/auth/user/", "/admin/auth/group/", "/admin/authtoken/tokenproxy/"]


def of(name):
    """The client of somebody who is in that group, and is given nothing else."""
    client, user = Client(), User.objects.create_user(name, is_staff=True)
    user.groups.add(Group.objects.get(name=name))
    client.force_login(user)
    return client


def codes(client, *paths):
    return [client.get(path).status_code for path in paths]


def test_three_groups_are_there_from_the_start():
    make(60), Target.objects.create(name="billing", url="https://api.example.org")
    Schedule.objects.create(name="lunch", times="12:30:00", zone="UTC")
    for name in GROUPS:
        client, more = of(name), GROUPS.index(name)
        assert codes(client, CALLS, TARGETS, SCHEDULES) == [200] * 3, name
        assert codes(client, f"{CALLS}add/", f"{SCHEDULES}add/") == [200 if more else 403] * 2, name
        assert codes(client, f"{TARGETS}add/", *PEOPLE) == [200 if name == "Admin" else 403] * 4, name
        target = Target.objects.get()
        assert client.get(f"{TARGETS}{target.id}/pause/").status_code == (200 if more else 403), name
        assert ("https://api.example.org" in client.get(f"{TARGETS}{target.id}/change/").content.decode()) == bool(more), name


@pytest.mark.parametrize("of_what", ["auth/group", "auth/user"])
def test_only_permissions_that_mean_something_are_offered(client, of_what):
    group, user = Group.objects.get(name="Viewer"), User.objects.create_user("ann")
    page = client.get(f"/admin/{of_what}/{group.pk if 'group' in of_what else user.pk}/change/").content.decode()
    offered = set(map(int, re.findall(r'type="checkbox" name="(?:user_)?permissions" value="(\d+)"', page)))
    kinds = Permission.objects.filter(id__in=offered).values_list("content_type__model", flat=True)
    assert set(kinds) == {"scheduledcall", "target", "schedule", "user", "group", "tokenproxy"} and len(offered) == 25
    admins = set(Group.objects.get(name="Admin").permissions.values_list("id", flat=True))
    assert offered == admins, "who may do all has all of them"
    assert "Can view call" in page and "Can schedule calls for target" in page and "Can delete call" not in page


def test_a_colleague_who_may_only_look_is_one_page(client):
    viewer = Group.objects.get(name="Viewer")
    page = client.get("/admin/auth/user/add/").content.decode()
    box = re.search(r'<input type="checkbox" name="is_staff"[^>]*>', page)[0]
    assert "checked" in box, "or he could not log in"
    assert "a Viewer sees calls, targets and schedules, and why a call failed" in page
    client.post("/admin/auth/user/add/", {"username": "ben", "usable_password": "true", "password1": PASSWORD,
                                         "password2": PASSWORD, "is_staff": "on", "groups": viewer.pk})
    ben = Client()
    assert ben.post("/admin/login/", {"username": "ben", "password": PASSWORD}).status_code == 302
    assert codes(ben, CALLS, f"{CALLS}add/") == [200, 403]


@pytest.mark.parametrize("lookup", ["auth_token__key__startswith=a", "auth_token__pk__startswith=a", "password__startswith=p"])
def test_who_may_see_users_finds_out_nobodys_token(lookup):
    ann = guest("view_user", "view_group")
    Token.objects.create(user=User.objects.create_superuser("root"), key="a" * 40)
    for path in (f"/admin/auth/user/?{lookup}", f"/admin/auth/group/?user__{lookup}"):
        assert ann.get(path).status_code == 302
    assert "root" in ann.get("/admin/auth/user/?is_superuser__exact=1&q=ro").content.decode()


def test_a_group_that_was_there_before_stays_as_it_is():
    """It is somebody's own, whatever its name; what it lacks is not given to it."""
    executor = MigrationExecutor(connection)
    last = [node for node in executor.loader.graph.leaf_nodes() if node[0] == "scheduler"]
    executor.migrate(executor.loader.get_migration("scheduler", "0016_groups").dependencies[:1])
    try:
        Group.objects.get(name="Viewer").permissions.clear()
        Group.objects.get(name="Operator").delete()
    finally:
        MigrationExecutor(connection).migrate(last)
    viewer, operator = Group.objects.get(name="Viewer"), Group.objects.get(name="Operator")
    assert not viewer.permissions.exists() and operator.permissions.filter(codename="use_target").exists()
    viewer.permissions.set(Permission.objects.filter(codename__in=["view_scheduledcall", "view_target", "view_schedule"]))
