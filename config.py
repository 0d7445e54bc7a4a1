"""Settings of api_scheduler.py. This file is Python: text in quotes, lists in brackets."""

# What is called at each time: http or https. A password in it (https://me:secret@host/) is
# never logged or shown, and is not seen in the process list.
API_URL = "https://ifconfig.co"

# Where each call gets its line. A relative path lies beside this file. On Windows write it as
# C:/logs/test.log: in quotes \t is a tab.
LOG_FILE = "test.log"

# What follows is optional; each line shows the default.

# Seconds that one call may take.
# TIMEOUT = 30

# Seconds after its time in which a call may still be started, say after the laptop was
# suspended. Later it is logged as missed, and not made.
# GRACE = 60

# Options for every curl, as on its command line; those given after -- come behind them.
# README.md names those that can be used. They are not seen in the process list, either.
# CURL_OPTIONS = ["-H", "Content-Type: application/json", "--data", "@/home/me/body.json"]
