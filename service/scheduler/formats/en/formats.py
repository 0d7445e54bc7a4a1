"""How times are written on the admin's pages; Django looks for it here (FORMAT_MODULE_PATH)."""

DATETIME_FORMAT = "Y-m-d H:i:s T"       # 2026-08-01 14:30:00 UTC
