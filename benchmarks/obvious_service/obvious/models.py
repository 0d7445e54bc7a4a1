from django.db import models


class Call(models.Model):
    timestamp = models.DateTimeField()
    status = models.CharField(max_length=10, default="Pending")
