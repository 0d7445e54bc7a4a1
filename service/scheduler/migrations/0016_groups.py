"""Three groups, for those who need not think about permissions: who may look, who may work with calls, who may do all.

A group of such a name that there is already is somebody's own, and stays as it is. Permissions are made here where
they are not there yet: Django makes them once all migrations have run.
"""
from django.db import migrations

LOOK = ["scheduler.scheduledcall: view", "scheduler.target: view", "scheduler.schedule: view"]
OPERATE = ["scheduler.scheduledcall: view add change", "scheduler.target: view change use_target see_request",
           "scheduler.schedule: view add change delete"]
ALL = ["scheduler.scheduledcall: view add change", "scheduler.target: view add change delete use_target see_request",
       "scheduler.schedule: view add change delete", "auth.user: view add change delete", "auth.group: view add change delete",
       "authtoken.tokenproxy: view add change delete"]
GROUPS = {"Viewer": LOOK, "Operator": OPERATE, "Admin": ALL}
NAMES = {"scheduledcall": "call", "tokenproxy": "Token", "use_target": "Can schedule calls for target",
         "see_request": "Can see what is sent to target"}


def make_groups(apps, schema_editor):
    kinds, permissions = apps.get_model("contenttypes", "ContentType").objects, apps.get_model("auth", "Permission").objects
    for name, rights in GROUPS.items():
        group, new = apps.get_model("auth", "Group").objects.get_or_create(name=name)
        if not new:
            continue
        for line in rights:
            model, words = line.split(": ")
            app, model = model.split(".")
            kind, _ = kinds.get_or_create(app_label=app, model=model)
            for word in words.split():
                codename = word if word in NAMES else f"{word}_{model}"
                permission, _ = permissions.get_or_create(content_type=kind, codename=codename, defaults={
                    "name": NAMES.get(word, f"Can {word} {NAMES.get(model, model)}")})
                group.permissions.add(permission)


class Migration(migrations.Migration):
    dependencies = [("scheduler", "0015_failures_noted"), ("auth", "0012_alter_user_first_name_max_length"),
                    ("contenttypes", "0002_remove_content_type_name"), ("authtoken", "0004_alter_tokenproxy_options")]

    operations = [migrations.RunPython(make_groups, migrations.RunPython.noop)]     # people may be in them
