"""The first migration, as `python manage.py makemigrations` writes it."""

from typing import ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):
    """Create the table of tickets."""

    initial = True
    dependencies: ClassVar = []
    operations: ClassVar = [
        migrations.CreateModel(
            name="Ticket",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("text", models.TextField()),
                ("urgency", models.CharField(blank=True, max_length=20)),
                ("error", models.CharField(blank=True, max_length=50)),
            ],
        ),
    ]
