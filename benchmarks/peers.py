"""The alternatives that the script is compared with, each in its own ordinary use.

    python3 benchmarks/peers.py NAME DUE CALLS URL

calls URL that many times at DUE, in whole seconds since the epoch. Started by lateness.py.
All of them have everything imported and prepared before DUE, and hold one call's failure
back from the others. Over HTTPS all trust the CAs of the system's store: curl finds it
by itself, requests is shown its bundle by REQUESTS_CA_BUNDLE (it would use certifi's, which
does not know the test CA), and aiohttp by its `ssl` argument.
"""

import sys
import threading
import time

SYSTEM_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"  # Debian's


def plain(due, calls, url):
    """Sleep, then a thread for each call, which runs curl."""
    import subprocess

    def call():
        subprocess.run(["curl", "-s", url], stdout=subprocess.DEVNULL)

    time.sleep(max(0, due - time.time()))
    for _ in range(calls):
        threading.Thread(target=call).start()


def with_apscheduler(due, calls, url):
    """APScheduler's BackgroundScheduler with a thread for every call, and requests.

    Its default of ten threads would make the calls ten at a time, and its default grace of
    one second would drop those that come later than that.
    """
    import datetime

    import requests
    from apscheduler.executors.pool import ThreadPoolExecutor
    from apscheduler.schedulers.background import BackgroundScheduler

    ended = threading.Semaphore(0)

    def call():
        try:
            requests.get(url)
        finally:
            ended.release()

    scheduler = BackgroundScheduler(
        executors={"default": ThreadPoolExecutor(calls)}, timezone=datetime.timezone.utc
    )
    when = datetime.datetime.fromtimestamp(due, datetime.timezone.utc)
    for _ in range(calls):
        scheduler.add_job(call, "date", run_date=when, misfire_grace_time=None)
    scheduler.start()
    for _ in range(calls):
        ended.acquire()
    scheduler.shutdown()


def with_schedule(due, calls, url):
    """schedule with requests, in the two ways of its manual that make it most punctual.

    A thread for each job ("Parallel execution"; otherwise one job waits for the one before
    it), and a loop that sleeps until the next job is due (`idle_seconds`); the loop on its
    first page sleeps a second at a time and adds up to that second to what is measured here.
    """
    import requests
    import schedule

    def call():
        threading.Thread(target=requests.get, args=(url,)).start()
        return schedule.CancelJob

    for _ in range(calls):
        schedule.every().day.at(time.strftime("%H:%M:%S", time.localtime(due))).do(call)
    while schedule.get_jobs():
        time.sleep(max(0, schedule.idle_seconds()))
        schedule.run_pending()


def with_aiohttp(due, calls, url):
    """asyncio with aiohttp: one session, without its default limit of 100 connections.

    The CA bundle is read once, before the calls are due: the one session makes that possible.
    """
    import asyncio
    import ssl

    import aiohttp

    async def call(session):
        await asyncio.sleep(due - time.time())
        async with session.get(url) as answer:
            await answer.read()

    async def call_all():
        trust = ssl.create_default_context(cafile=SYSTEM_BUNDLE) if url[:6] == "https:" else True
        connector = aiohttp.TCPConnector(limit=0, ssl=trust)
        async with aiohttp.ClientSession(connector=connector) as session:
            tasks = [call(session) for _ in range(calls)]
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(call_all())


PEERS = {
    "plain": plain,
    "apscheduler": with_apscheduler,
    "schedule": with_schedule,
    "aiohttp": with_aiohttp,
}

if __name__ == "__main__":
    PEERS[sys.argv[1]](int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
