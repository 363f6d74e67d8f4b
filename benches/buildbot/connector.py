"""Runs Buildbot's own database connector for the benches: `connector.py DATABASE-URL`.

It reads orders from standard input, a JSON object a line, and answers each with an object. The first line of its
output names the version of Buildbot and the durability.
"""

import json
import sys
import time

import buildbot
import sqlalchemy as sa
from buildbot.config.master import DBConfig
from buildbot.db.connector import DBConnector
from buildbot.process.cache import CacheManager
from twisted.internet import defer, reactor, stdio
from twisted.protocols.basic import LineReceiver


class Master:
    """The parts of a master that the connector needs: the clock, caches, and the URL of the database."""

    def __init__(self, url):
        self.reactor = reactor
        self.caches = CacheManager()
        self.config = None
        self.db_config = DBConfig(db_url=url)

    def get_db_config(self, _config):
        return defer.succeed(self.db_config)


async def connect(url):
    """The connector of a master on a new database, and a description of the durability."""
    db = DBConnector("/")
    await db.set_master(Master(url))
    await db.setup(check_version=False, verbose=False)
    if db._engine.dialect.name == "sqlite":
        # The default of SQLite, unless it was built with another. Buildbot itself turns on the write-ahead log.
        @sa.event.listens_for(db._engine, "connect")
        def synchronous(connection, _record):
            connection.execute("PRAGMA synchronous = FULL")

    await db.model.upgrade()
    return db, await db.pool.do(durability)


def durability(connection):
    def value(query):
        return connection.exec_driver_sql(query).scalar()

    if connection.dialect.name == "sqlite":
        return f"{value('PRAGMA journal_mode')}, synchronous={value('PRAGMA synchronous')} (2 is FULL)"
    return f"fsync={value('SHOW fsync')}, synchronous_commit={value('SHOW synchronous_commit')}"


class Builds:
    """Inserts rows of builds, which the rows of steps refer to."""

    def __init__(self, db):
        self.db = db
        self.used = 0

    async def prepare(self):
        model = self.db.model
        now = int(time.time())

        def insert(connection):
            def row(table, **values):
                return connection.execute(table.insert(), values).inserted_primary_key[0]

            master = row(model.masters, name="bench", name_hash="0" * 40, active=1, last_active=now)
            builder = row(model.builders, name="bench", name_hash="0" * 40)
            buildset = row(model.buildsets, submitted_at=now, complete=0, results=-1)
            request = row(
                model.buildrequests, buildsetid=buildset, builderid=builder, submitted_at=now, complete=0,
                results=-1, priority=0, waited_for=0,
            )
            worker = row(model.workers, name="bench", info={}, paused=0, graceful=0)
            connection.commit()
            return {"builderid": builder, "buildrequestid": request, "workerid": worker, "masterid": master}

        self.keys = await self.db.pool.do(insert)

    async def fresh(self):
        self.used += 1
        row = {"number": self.used, "started_at": int(time.time()), "state_string": "", "locks_duration_s": 0, **self.keys}

        def insert(connection):
            key = connection.execute(self.db.model.builds.insert(), row).inserted_primary_key[0]
            connection.commit()
            return key

        return await self.db.pool.do(insert)


def url(number):
    return f"https://ci.example.org/builds/7/steps/{number:08}"


async def life(steps, build, number, order):
    state, url_name = order["state"], order["url_name"]
    step, _, _ = await steps.addStep(build, f"s000{number:08}", state)
    await steps.startStep(step, int(time.time()), False)
    await steps.set_step_locks_acquired_at(step, int(time.time()))
    for _ in range(3):
        await steps.setStepStateString(step, state)
    for of_step in range(2):
        await steps.addURL(step, url_name, url(of_step))
    await steps.finishStep(step, 0, False)
    found = await steps.getSteps(build)
    assert (len(found), len(found[number].urls)) == (number + 1, 2)


async def lifecycle(db, builds, order):
    """The same as `life::run` of the bench, with the same answer."""
    lives = []
    # Inserting the first builds is not measured. Inserting later builds is, but takes a small part of the time.
    waiting = [await builds.fresh() for _ in range(order["in_flight"])]
    start = time.perf_counter()

    async def run_builds(build):
        while True:
            for number in range(order["steps"]):
                begun = time.perf_counter()
                await life(db.steps, build, number, order)
                lives.append(time.perf_counter() - begun)
                if time.perf_counter() - start >= order["seconds"]:
                    return
            build = await builds.fresh()

    await defer.gatherResults([defer.ensureDeferred(run_builds(build)) for build in waiting])
    seconds = time.perf_counter() - start
    lives.sort()

    def quantile(part):
        return lives[min(int(len(lives) * part), len(lives) - 1)] * 1e6

    return {"per_second": len(lives) / seconds, "p50_us": quantile(0.5), "p99_us": quantile(0.99)}


async def growth(db, builds, order):
    """The median time of a call on a build or step of this size, in microseconds."""
    steps, model = db.steps, db.model
    build = await builds.fresh()
    size, times = order["size"], []
    if order["operation"] == "add_step_same_name":
        # Named as Buildbot's addStep names them, but inserted in bulk, since single adds take minutes.
        names = [order["name"]] + [f"{order['name']}_{number}" for number in range(1, size)]
        rows = [
            {"buildid": build, "number": number, "name": name, "state_string": order["state"], "urls_json": "[]"}
            for number, name in enumerate(names)
        ]
        await insert(db, rows)
        for _ in range(order["calls"]):
            begun = time.perf_counter()
            await steps.addStep(build, order["name"], order["state"])
            times.append(time.perf_counter() - begun)
    else:
        urls = [{"name": order["url_name"], "url": url(number)} for number in range(size)]
        row = {"buildid": build, "number": 0, "name": "links", "state_string": "", "urls_json": json.dumps(urls)}
        await insert(db, [row])
        step = (await steps.getStep(buildid=build, number=0)).id
        for number in range(order["calls"]):
            begun = time.perf_counter()
            await steps.addURL(step, order["url_name"], url(size + number))
            times.append(time.perf_counter() - begun)
    times.sort()
    return {"us": times[len(times) // 2] * 1e6}


async def insert(db, rows):
    def thd(connection):
        connection.execute(db.model.steps.insert(), rows)
        connection.commit()

    await db.pool.do(thd)


class Orders(LineReceiver):
    """Executes one order after the other, until the end of standard input."""

    delimiter = b"\n"

    def __init__(self, db, builds):
        self.db, self.builds, self.doing = db, builds, defer.succeed(None)

    def lineReceived(self, line):
        order = json.loads(line)
        do = {"lifecycle": lifecycle, "growth": growth}[order["do"]]

        async def execute():
            print(json.dumps(await do(self.db, self.builds, order)), flush=True)

        self.doing.addCallback(lambda _: defer.ensureDeferred(execute()))
        self.doing.addErrback(self.fail)

    def fail(self, failure):
        failure.printTraceback(sys.stderr)
        stop()

    def connectionLost(self, reason=None):
        stop()


def stop():
    if reactor.running:
        reactor.stop()


async def main(url):
    db, made = await connect(url)
    builds = Builds(db)
    await builds.prepare()
    print(f"Buildbot {buildbot.version} ({made})", flush=True)
    stdio.StandardIO(Orders(db, builds))
    await defer.Deferred()


def run(url):
    def fail(failure):
        failure.printTraceback(sys.stderr)
        stop()

    defer.ensureDeferred(main(url)).addErrback(fail)


if __name__ == "__main__":
    reactor.callWhenRunning(run, sys.argv[1])
    reactor.run()
