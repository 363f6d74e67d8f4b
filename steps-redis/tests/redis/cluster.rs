//! A cluster with slots that move and primaries that are killed.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use conformance_tests::proxy::Proxy;
use libtest_mimic::Trial;
use steps_core::{ErrorKind, Results, StepsStore, StepsStoreExt};
use test_servers::{
    RedisCluster, RedisOptions, TestResult,
    children::{Answered, BUILD, Writers, check_half_written, keyed, share_a_build, times, until},
    trial,
};
use tokio::{
    sync::{Mutex, MutexGuard},
    task::JoinSet,
};

use crate::{connect, faults::expect_true_errors, impatient};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("cluster::nothing_is_lost_or_doubled_while_slots_move", moving_slots),
        trial("cluster::a_build_that_is_half_moved_is_read_and_waited_for", half_moved),
        trial("cluster::redirects_in_a_circle_are_followed_with_delays", in_circles),
        trial("cluster::many_waiting_calls_share_the_refreshes_of_the_slot_map", many_waiting_calls),
        trial("cluster::a_replica_that_takes_over_is_found", failover),
        trial("cluster::a_loss_by_a_failover_would_be_noticed", failover_without_replication),
        trial("cluster::a_failover_loses_no_replicated_write", failover_after_waiting),
        trial("cluster::a_manual_failover_loses_nothing", handover),
        trial("cluster::a_hung_primary_is_replaced", hung_primary),
        trial("cluster::a_connection_that_is_cut_anywhere_gives_a_true_error", cut_anywhere),
    ]
}

/// The cluster of these tests. Other tests have another cluster, since the failovers here would disturb them.
async fn cluster() -> TestResult<MutexGuard<'static, RedisCluster>> {
    static CLUSTER: OnceLock<Result<Mutex<RedisCluster>, String>> = OnceLock::new();
    let start = || RedisOptions::default().start_cluster().map(Mutex::new).map_err(|error| error.to_string());
    let cluster = CLUSTER.get_or_init(start).as_ref().map_err(Clone::clone)?;
    let cluster = cluster.lock().await;
    cluster.wait_until_ok()?;
    Ok(cluster)
}

/// The key of the build that all tests write to.
fn key(prefix: &str) -> String {
    format!("{{{prefix}:{BUILD}}}")
}

/// The migration of a slot from one node to another.
struct Move<'a> {
    cluster: &'a RedisCluster,
    slot: String,
    from: usize,
    to: usize,
}

impl<'a> Move<'a> {
    /// Begins the migration of the slot of this key to another primary.
    fn begin(cluster: &'a RedisCluster, key: &str) -> TestResult<Self> {
        let nodes = cluster.nodes();
        let from = cluster.primary_of(key)?;
        let mut to = None;
        for (index, node) in nodes.iter().enumerate() {
            let role: String = node.query(&["INFO", "replication"])?;
            if index != from && role.contains("role:master") {
                to = Some(index);
            }
        }
        let to = to.ok_or("there is another primary")?;
        let slot = nodes[from].query::<u32>(&["CLUSTER", "KEYSLOT", key])?.to_string();
        let ids = [from, to].map(|index| nodes[index].query::<String>(&["CLUSTER", "MYID"]));
        let [from_id, to_id] = ids;
        nodes[to].query::<()>(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id?])?;
        nodes[from].query::<()>(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id?])?;
        Ok(Self { cluster, slot, from, to })
    }

    /// Moves one key.
    fn key(&self, key: &str) -> TestResult {
        let [from, to] = [self.from, self.to].map(|index| &self.cluster.nodes()[index]);
        from.query::<String>(&["MIGRATE", "127.0.0.1", &to.port().to_string(), key, "0", "5000"])?;
        Ok(())
    }

    /// Moves the remaining keys, with a pause after each, and then the slot.
    fn end(self, pause: Duration) -> TestResult {
        let nodes = self.cluster.nodes();
        loop {
            let keys: Vec<String> = nodes[self.from].query(&["CLUSTER", "GETKEYSINSLOT", &self.slot, "1"])?;
            let Some(key) = keys.first() else { break };
            self.key(key)?;
            thread::sleep(pause);
        }
        let id: String = nodes[self.to].query(&["CLUSTER", "MYID"])?;
        for index in [self.to, self.from] {
            nodes[index].query::<()>(&["CLUSTER", "SETSLOT", &self.slot, "NODE", &id])?;
        }
        Ok(())
    }
}

/// Runs `act` repeatedly on a thread while processes share a build. Returns the number of runs.
async fn share_while(url: &str, rounds: usize, act: impl Fn() -> TestResult + Sync) -> TestResult<usize> {
    let store = connect(url).await?;
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let acting = scope.spawn(|| {
            let mut times = 0;
            while !is_over.load(Ordering::Relaxed) {
                act()?;
                times += 1;
            }
            TestResult::Ok(times)
        });
        let shared = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(share_a_build(url, &store, rounds))
        });
        is_over.store(true, Ordering::Relaxed);
        let acted = acting.join().map_err(|_| "a thread panicked")?;
        shared?;
        acted
    })
}

async fn moving_slots() -> TestResult {
    let cluster = cluster().await?;
    for (prefix, parameters) in [("moving", ""), ("moving-and-waiting", "&replicas=1")] {
        let url = format!("{}?prefix={prefix}{parameters}", cluster.url());
        let times = share_while(&url, 8, || {
            thread::sleep(Duration::from_millis(50));
            Move::begin(&cluster, &key(prefix))?.end(Duration::from_millis(30))
        })
        .await?;
        assert!(times > 2, "the slot moved {times} times");
    }
    Ok(())
}

/// Only one of the build's keys has moved. Calls that need one key succeed. Calls that need both keys succeed once the
/// slot has moved, or end in time.
async fn half_moved() -> TestResult {
    let cluster = cluster().await?;
    let url = format!("{}?prefix=half", cluster.url());
    let store = connect(&url).await?;
    let hasty = impatient(&url).await?;
    let step = store.add(BUILD, "compile", "").await?.id;
    for round in 0..2_usize {
        let keys = [key("half"), format!("{}:index", key("half"))];
        let before = store.steps(BUILD).await?;
        let moving = Move::begin(&cluster, &keys[0])?;
        moving.key(&keys[round % 2])?;
        // R1, R2, L3, L4
        assert_eq!(store.steps(BUILD).await?, before);
        assert_eq!(store.step(step).await?.as_ref(), before.first());
        assert!(store.step_named(BUILD, "compile").await?.is_some());
        store.state(step, "running").await?;
        store.finish(step, Results::SUCCESS).await?;
        // D4
        let error = hasty.add(BUILD, "never", "").await.err().ok_or("an add needs both keys")?;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        thread::scope(|scope| {
            let moved = scope.spawn(|| {
                thread::sleep(Duration::from_millis(300));
                moving.end(Duration::ZERO)
            });
            let waited = tokio::task::block_in_place(|| {
                tokio::runtime::Handle::current().block_on(async {
                    let (added, linked) = tokio::join!(
                        store.add(BUILD, "waited", ""),
                        store.add_named_url(step, "log", round.to_string())
                    );
                    linked.and(added)
                })
            });
            moved.join().map_err(|_| "a thread panicked")??;
            TestResult::Ok(waited?)
        })?;
    }
    let steps = store.steps(BUILD).await?;
    assert_eq!((steps.len(), steps[0].urls.len()), (3, 2));
    assert!(steps.iter().all(|step| step.name != "never"));
    Ok(())
}

/// Calls that wait for a slot refresh the slot map repeatedly, and share each refresh.
async fn many_waiting_calls() -> TestResult {
    let cluster = cluster().await?;
    let store = Arc::new(impatient(&format!("{}?prefix=waiting", cluster.url())).await?);
    store.add(BUILD, "compile", "").await?;
    let queries = || -> TestResult<u128> {
        let mut sum = 0;
        for node in cluster.nodes() {
            let commands: String = node.query(&["INFO", "commandstats"])?;
            let slots = commands.lines().find_map(|line| line.strip_prefix("cmdstat_cluster|slots:calls="));
            let calls = slots.and_then(|line| line.split(',').next());
            sum += calls.map_or(Ok(0), str::parse::<u128>)?;
        }
        Ok(sum)
    };
    let moving = Move::begin(&cluster, &key("waiting"))?;
    moving.key(&key("waiting"))?;
    let before = queries()?;
    let start = Instant::now();
    let mut adds = JoinSet::new();
    for _ in 0..100 {
        let store = Arc::clone(&store);
        // An add needs both keys of the build, and only one of them has moved.
        adds.spawn(async move { store.add(BUILD, "never", "").await });
    }
    let added = adds.join_all().await;
    let count = queries()? - before;
    let elapsed = start.elapsed();
    moving.end(Duration::ZERO)?;
    for added in added {
        let error = added.err().ok_or("an add needs both keys")?;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(!error.may_have_applied(), "{error}");
    }
    assert_eq!(store.steps(BUILD).await?.len(), 1);
    // A refresh queries all nodes, and there is one in 50 ms at most.
    let max = (elapsed.as_millis() / 50 + 1) * cluster.nodes().len() as u128;
    assert!((1..=max).contains(&count), "{count} queries in {elapsed:?}, expected at most {max}");
    Ok(())
}

/// Two primaries redirect to each other. The store follows the redirects with delays.
async fn in_circles() -> TestResult {
    // A private cluster: its nodes gossip about the conflict, which could disturb other tests.
    let cluster = RedisOptions::default().start_cluster()?;
    let store = impatient(&format!("{}?prefix=circles", cluster.url())).await?;
    let moving = Move::begin(&cluster, &key("circles"))?;
    let pair = [moving.from, moving.to].map(|index| &cluster.nodes()[index]);
    let [from_id, to_id] = pair.map(|node| node.query::<String>(&["CLUSTER", "MYID"]));
    let set_owner = |id: &str| pair[0].query::<()>(&["CLUSTER", "SETSLOT", &moving.slot, "NODE", id]);
    let redirects = || -> TestResult<u64> {
        let mut sum = 0;
        for node in pair {
            let errors: String = node.query(&["INFO", "errorstats"])?;
            let moved = errors.lines().find_map(|line| line.strip_prefix("errorstat_MOVED:count="));
            sum += moved.map_or(Ok(0), str::parse::<u64>)?;
        }
        Ok(sum)
    };
    pair[1].query::<()>(&["CLUSTER", "SETSLOT", &moving.slot, "STABLE"])?;
    set_owner(&to_id?)?;
    let before = redirects()?;
    let error = store.add(BUILD, "compile", "").await.unwrap_err();
    let count = redirects()? - before;
    set_owner(&from_id?)?;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(!error.may_have_applied() && error.is_retryable(), "{error}");
    assert!((10..200).contains(&count), "{count} redirects");
    store.add(BUILD, "compile", "").await?;
    Ok(())
}

/// The replica takes over repeatedly, by CLUSTER FAILOVER.
async fn handover() -> TestResult {
    let cluster = cluster().await?;
    let url = format!("{}?prefix=handover", cluster.url());
    let set_node_timeout = |millis| {
        let command = ["CONFIG", "SET", "cluster-node-timeout", millis];
        cluster.nodes().iter().try_for_each(|node| node.query::<()>(&command))
    };
    // On a busy machine a replica might take its primary for dead, and take over without the last writes.
    set_node_timeout("60000")?;
    let times = share_while(&url, 4, || {
        let primary = cluster.primary_of(&key("handover"))?;
        if let Some(&replica) = cluster.replicas_of(primary)?.first() {
            // The replica refuses while the previous failover is not complete.
            let _ = cluster.nodes()[replica].query::<()>(&["CLUSTER", "FAILOVER"]);
        }
        Ok(cluster.wait_until_ok()?)
    })
    .await;
    set_node_timeout("2000")?;
    assert!(times? > 0, "no replica took over");
    Ok(())
}

async fn failover() -> TestResult {
    let mut cluster = cluster().await?;
    for time in 0..times("STEPS_REDIS_FAILOVERS", 1) {
        let prefix = format!("failover-{time}");
        lost_by_failover(&mut cluster, &prefix, "", 300 + 37 * time, Cut::Never).await?;
    }
    Ok(())
}

/// With and without a connection between primary and replica before the primary is killed.
async fn failover_after_waiting() -> TestResult {
    let mut cluster = cluster().await?;
    for time in 0..times("STEPS_REDIS_FAILOVERS", 1) {
        for (cut, name) in [(Cut::Never, "connected"), (Cut::For(Duration::from_millis(500)), "disconnected")] {
            let prefix = format!("{name}-{time}");
            let lost = lost_by_failover(&mut cluster, &prefix, "&replicas=1", 300 + 37 * time, cut).await?;
            assert_eq!(lost, 0, "D1: {prefix}");
        }
    }
    Ok(())
}

/// The time between the end of replication and the kill of the primary.
#[derive(Clone, Copy)]
enum Cut {
    Never,
    /// Until each process has this many further answers.
    Answers(usize),
    For(Duration),
}

/// The control of the tests above: they would notice a loss. Writes that a primary answers while its replica cannot
/// reach it are lost with the primary.
async fn failover_without_replication() -> TestResult {
    let lost = lost_by_failover(&mut *cluster().await?, "unreplicated", "", 100, Cut::Answers(100)).await?;
    assert!(lost > 0, "no loss was noticed");
    Ok(())
}

/// Kills the primary of a build while two processes write to it, after this many answers of each. Returns how many
/// answered writes were lost. Checks that no write is half-done, and that calls wait for the replica.
async fn lost_by_failover(
    cluster: &mut RedisCluster,
    prefix: &str,
    parameters: &str,
    answers: usize,
    cut: Cut,
) -> TestResult<usize> {
    let url = format!("{}?prefix={prefix}", cluster.url());
    let store = connect(&url).await?;
    let url = url + parameters;
    let (index, writers, mut answered) = loop {
        let index = cluster.primary_of(&key(prefix))?;
        let mut writers = Writers::start(2, &url)?;
        let mut answered = Answered::default();
        let primary = &cluster.nodes()[index];
        writers.hear(answers, &mut answered)?;
        if !matches!(cut, Cut::Never) {
            primary.query::<()>(&["ACL", "SETUSER", "default", "-psync", "-sync"])?;
            primary.query::<()>(&["CLIENT", "KILL", "TYPE", "replica"])?;
        }
        match cut {
            Cut::Never => {}
            Cut::Answers(more) => writers.hear(more, &mut answered)?,
            Cut::For(time) => thread::sleep(time),
        }
        if cluster.primary_of(&key(prefix)).is_ok_and(|now| now == index) {
            break (index, writers, answered);
        }
        // On a busy machine a replica may take its primary for dead, and take over by itself.
        primary.query::<()>(&["ACL", "SETUSER", "default", "+@all"])?;
        cluster.wait_until_ok()?;
    };
    cluster.nodes_mut()[index].kill()?;
    let killed = Instant::now();
    // Before the replica takes over. Otherwise the writers would get the names and numbers of lost steps again.
    writers.kill(&mut answered)?;
    // An add with a key is retried until the replica has taken over.
    let keyed = store.add_step(keyed("keyed", "key")?).await?;
    let waited = killed.elapsed();
    let steps = store.steps(BUILD).await?;
    check_half_written(&steps);
    assert!(steps.iter().any(|step| step.id == keyed.id));
    let lost = answered.lost(&steps).len();
    let writes = answered.writes();
    println!("{prefix}: {lost} of {writes} answered writes were lost, and the next one waited {waited:?}");
    cluster.nodes_mut()[index].start_again()?;
    cluster.wait_until_ok()?;
    store.add(BUILD, "compile", "").await?;
    Ok(lost)
}

/// A primary hangs. Once its replica has taken over, idempotent calls are retried there, and other calls end with an
/// unknown outcome.
async fn hung_primary() -> TestResult {
    let cluster = cluster().await?;
    let url = format!("{}?prefix=hung", cluster.url());
    let store = connect(&url).await?;
    let step = store.add(BUILD, "compile", "").await?.id;
    let index = cluster.primary_of(&key("hung"))?;
    cluster.wait_until_ok()?;
    cluster.nodes()[index].pause()?;
    let (added, keyed, linked, read) = tokio::join!(
        store.add(BUILD, "plain", ""),
        store.add_step(keyed("keyed", "key")?),
        store.add_named_url(step, "log", "url"),
        store.steps(BUILD)
    );
    let plain = added.err().ok_or("an add without a key is not sent twice")?;
    // Later calls go to the replica.
    let found = store.add(BUILD, "found", "").await;
    cluster.nodes()[index].resume()?;
    cluster.wait_until_ok()?;
    assert_eq!(plain.kind(), ErrorKind::Unavailable, "{plain}");
    assert!(plain.may_have_applied() && !plain.is_retryable(), "{plain}");
    linked.and(found.map(drop))?;
    assert!(!read?.is_empty());
    // The old primary does not apply commands that it reads after it has resumed, since it is a replica then.
    let steps = store.steps(BUILD).await?;
    assert!(steps.iter().any(|step| keyed.as_ref().is_ok_and(|keyed| keyed.id == step.id)), "{keyed:?} {steps:?}");
    assert_eq!(steps.iter().filter(|step| step.name.as_str().starts_with("keyed")).count(), 1, "I5");
    assert_eq!(steps[0].urls.len(), 1, "U2");
    assert!(steps.iter().filter(|step| step.name == "plain").count() <= 1);
    Ok(())
}

/// A proxy in front of each node. The cluster announces the addresses of the proxies.
async fn cut_anywhere() -> TestResult {
    let cluster = RedisOptions::default().start_cluster_without_replicas()?;
    let mut proxies = Vec::new();
    for node in cluster.nodes() {
        let proxy = Proxy::start(node.address()).await?;
        node.query::<()>(&["CONFIG", "SET", "cluster-announce-port", &proxy.address().port().to_string()])?;
        proxies.push(proxy);
    }
    let addresses: Vec<_> = proxies.iter().map(|proxy| proxy.address().to_string()).collect();
    // Until the nodes have gossiped the addresses.
    until("the cluster names the proxies", async || {
        cluster.nodes().iter().all(|node| {
            let known = node.query::<String>(&["CLUSTER", "NODES"]).unwrap_or_default();
            addresses.iter().all(|address| known.contains(address))
        })
    })
    .await?;
    let url = format!("redis-cluster://{}", addresses.join(","));
    let proxy = &proxies[cluster.primary_of("{steps:7}")?];
    let before = proxy.connections();
    let store = connect(&url).await?;
    let other = connect(&url).await?;
    expect_true_errors(proxy, store, other).await?;
    assert!(proxy.connections() > before + 120, "{} connections", proxy.connections() - before);
    Ok(())
}
