//! A cluster whose slots move and whose primaries die.

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

use crate::{connect, faults::told_honestly, impatient};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("cluster::nothing_is_lost_or_doubled_while_slots_move", moving_slots),
        trial("cluster::a_build_that_is_half_moved_is_read_and_waited_for", half_moved),
        trial("cluster::nodes_that_send_a_call_in_circles_are_asked_now_and_then", in_circles),
        trial("cluster::many_calls_that_wait_ask_for_the_slots_as_seldom_as_one", waiting_crowd),
        trial("cluster::a_replica_that_takes_over_is_found", failover),
        trial("cluster::what_a_failover_loses_would_be_noticed", failover_without_replication),
        trial("cluster::a_failover_loses_nothing_that_waited_for_the_replica", failover_after_waiting),
        trial("cluster::a_primary_that_hands_over_loses_nothing", handover),
        trial("cluster::a_primary_that_vanishes_is_replaced", vanished),
        trial("cluster::whatever_is_cut_off_where_it_is_told_honestly", cut_anywhere),
    ]
}

/// The cluster that these tests share. It is not that of others: they would meet what is done to it here.
async fn cluster() -> TestResult<MutexGuard<'static, RedisCluster>> {
    static CLUSTER: OnceLock<Result<Mutex<RedisCluster>, String>> = OnceLock::new();
    let start = || RedisOptions::default().start_cluster().map(Mutex::new).map_err(|error| error.to_string());
    let cluster = CLUSTER.get_or_init(start).as_ref().map_err(Clone::clone)?;
    let cluster = cluster.lock().await;
    cluster.wait_until_ok()?;
    Ok(cluster)
}

/// The key of the build that all write to.
fn key(prefix: &str) -> String {
    format!("{{{prefix}:{BUILD}}}")
}

/// A slot on its way from one node to another.
struct Move<'a> {
    cluster: &'a RedisCluster,
    slot: String,
    from: usize,
    to: usize,
}

impl<'a> Move<'a> {
    /// Begins to move the slot of this key to another primary.
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

    fn key(&self, key: &str) -> TestResult {
        let [from, to] = [self.from, self.to].map(|index| &self.cluster.nodes()[index]);
        from.query::<String>(&["MIGRATE", "127.0.0.1", &to.port().to_string(), key, "0", "5000"])?;
        Ok(())
    }

    /// Moves what is left, key by key with a pause between, and then the slot.
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

/// Runs `act` again and again, on a thread, while processes share a build. Gives how often.
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

/// With one key of the build here and the other there, or one that is not there yet: what needs but one is done, and
/// what needs both is done once the slot has moved, or ends in time.
async fn half_moved() -> TestResult {
    let cluster = cluster().await?;
    let url = format!("{}?prefix=half", cluster.url());
    let (store, hasty) = (connect(&url).await?, impatient(&url).await?);
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

/// Calls that wait for a slot look again and again who has it by now. However many they are, the cluster is asked once
/// for all of them.
async fn waiting_crowd() -> TestResult {
    let cluster = cluster().await?;
    let store = Arc::new(impatient(&format!("{}?prefix=crowd", cluster.url())).await?);
    store.add(BUILD, "compile", "").await?;
    let asked = || -> TestResult<u128> {
        let mut sum = 0;
        for node in cluster.nodes() {
            let commands: String = node.query(&["INFO", "commandstats"])?;
            let slots = commands.lines().find_map(|line| line.strip_prefix("cmdstat_cluster|slots:calls="));
            let calls = slots.and_then(|line| line.split(',').next());
            sum += calls.map_or(Ok(0), str::parse::<u128>)?;
        }
        Ok(sum)
    };
    let moving = Move::begin(&cluster, &key("crowd"))?;
    moving.key(&key("crowd"))?;
    let (before, start) = (asked()?, Instant::now());
    let mut adds = JoinSet::new();
    for _ in 0..100 {
        let store = Arc::clone(&store);
        // An add needs both keys of the build, of which one is here and the other there.
        adds.spawn(async move { store.add(BUILD, "never", "").await });
    }
    let added = adds.join_all().await;
    let (times, took) = (asked()? - before, start.elapsed());
    moving.end(Duration::ZERO)?;
    for added in added {
        let error = added.err().ok_or("an add needs both keys")?;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(!error.may_have_applied(), "{error}");
    }
    assert_eq!(store.steps(BUILD).await?.len(), 1);
    // Every 50 ms at most, all nodes, of which the first answer counts.
    let most = (took.as_millis() / 50 + 1) * cluster.nodes().len() as u128;
    assert!((1..=most).contains(&times), "they were asked {times} times in {took:?}, which is at most {most}");
    Ok(())
}

/// Each of two primaries takes the other for the owner of a slot: a call is not sent to and fro as fast as it can.
async fn in_circles() -> TestResult {
    // One of its own: what its nodes tell each other meanwhile could spoil it for others.
    let cluster = RedisOptions::default().start_cluster()?;
    let store = impatient(&format!("{}?prefix=circles", cluster.url())).await?;
    let moving = Move::begin(&cluster, &key("circles"))?;
    let pair = [moving.from, moving.to].map(|index| &cluster.nodes()[index]);
    let [from_id, to_id] = pair.map(|node| node.query::<String>(&["CLUSTER", "MYID"]));
    let own = |id: &str| pair[0].query::<()>(&["CLUSTER", "SETSLOT", &moving.slot, "NODE", id]);
    let sent_on = || -> TestResult<u64> {
        let mut sum = 0;
        for node in pair {
            let errors: String = node.query(&["INFO", "errorstats"])?;
            let moved = errors.lines().find_map(|line| line.strip_prefix("errorstat_MOVED:count="));
            sum += moved.map_or(Ok(0), str::parse::<u64>)?;
        }
        Ok(sum)
    };
    pair[1].query::<()>(&["CLUSTER", "SETSLOT", &moving.slot, "STABLE"])?;
    own(&to_id?)?;
    let before = sent_on()?;
    let error = store.add(BUILD, "compile", "").await.unwrap_err();
    let times = sent_on()? - before;
    own(&from_id?)?;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(!error.may_have_applied() && error.is_retryable(), "{error}");
    assert!((10..200).contains(&times), "it was sent on {times} times");
    store.add(BUILD, "compile", "").await?;
    Ok(())
}

/// The replica takes over in good order, again and again.
async fn handover() -> TestResult {
    let cluster = cluster().await?;
    let url = format!("{}?prefix=handover", cluster.url());
    let give_up_after = |millis| {
        let command = ["CONFIG", "SET", "cluster-node-timeout", millis];
        cluster.nodes().iter().try_for_each(|node| node.query::<()>(&command))
    };
    // On a busy machine a replica might think that its primary is gone, and take over without being given anything.
    give_up_after("60000")?;
    let times = share_while(&url, 4, || {
        let primary = cluster.primary_of(&key("handover"))?;
        if let Some(&replica) = cluster.replicas_of(primary)?.first() {
            // It refuses while it is not done with the last one.
            let _ = cluster.nodes()[replica].query::<()>(&["CLUSTER", "FAILOVER"]);
        }
        Ok(cluster.wait_until_ok()?)
    })
    .await;
    give_up_after("2000")?;
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

/// Whether the replica is reached until the primary is killed, or not any more.
async fn failover_after_waiting() -> TestResult {
    let mut cluster = cluster().await?;
    for time in 0..times("STEPS_REDIS_FAILOVERS", 1) {
        for (cut, name) in [(Cut::Never, "reached"), (Cut::For(Duration::from_millis(500)), "not-reached")] {
            let prefix = format!("{name}-{time}");
            let lost = lost_by_failover(&mut cluster, &prefix, "&replicas=1", 300 + 37 * time, cut).await?;
            assert_eq!(lost, 0, "D1: {prefix}");
        }
    }
    Ok(())
}

/// Whether the replica is cut off from the primary before that is killed, and for how long.
#[derive(Clone, Copy)]
enum Cut {
    Never,
    /// Until each process has so many more answers.
    Answers(usize),
    For(Duration),
}

/// The control: what tells of a loss would notice one. What a primary answers while its replica cannot reach it is lost
/// with it.
async fn failover_without_replication() -> TestResult {
    let lost = lost_by_failover(&mut *cluster().await?, "unreplicated", "", 100, Cut::Answers(100)).await?;
    assert!(lost > 0, "no loss was noticed");
    Ok(())
}

/// Kills the primary of a build in the middle of the work of two processes, each after this many answers. Tells how much
/// was lost of what was answered; of the rest, nothing is half-written, and calls wait for the replica.
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
        let (mut writers, mut answered) = (Writers::start(2, &url)?, Answered::default());
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
        // On a busy machine a replica may think that its primary is gone, and take over by itself.
        primary.query::<()>(&["ACL", "SETUSER", "default", "+@all"])?;
        cluster.wait_until_ok()?;
    };
    cluster.nodes_mut()[index].kill()?;
    let killed = Instant::now();
    // Before the replica takes over: they would be given the names and numbers of lost steps again.
    writers.kill(&mut answered)?;
    // A keyed add is done once the replica has taken over, by itself.
    let keyed = store.add_step(keyed("keyed", "key")?).await?;
    let waited = killed.elapsed();
    let steps = store.steps(BUILD).await?;
    check_half_written(&steps);
    assert!(steps.iter().any(|step| step.id == keyed.id));
    let (lost, writes) = (answered.lost(&steps).len(), answered.writes());
    println!("{prefix}: {lost} of {writes} answered writes were lost, and the next one waited {waited:?}");
    cluster.nodes_mut()[index].start_again()?;
    cluster.wait_until_ok()?;
    store.add(BUILD, "compile", "").await?;
    Ok(lost)
}

/// A primary from which nothing comes any more, not even a refusal: calls that wait for it go to its replica once that has
/// taken over, and the others are told that they may have been applied.
async fn vanished() -> TestResult {
    let cluster = cluster().await?;
    let url = format!("{}?prefix=vanished", cluster.url());
    let store = connect(&url).await?;
    let step = store.add(BUILD, "compile", "").await?.id;
    let index = cluster.primary_of(&key("vanished"))?;
    cluster.wait_until_ok()?;
    cluster.nodes()[index].pause()?;
    let (added, keyed, linked, read) = tokio::join!(
        store.add(BUILD, "plain", ""),
        store.add_step(keyed("keyed", "key")?),
        store.add_named_url(step, "log", "url"),
        store.steps(BUILD)
    );
    let plain = added.err().ok_or("an add without a key is not sent twice")?;
    // Who has met it once goes to the replica.
    let found = store.add(BUILD, "found", "").await;
    cluster.nodes()[index].resume()?;
    cluster.wait_until_ok()?;
    assert_eq!(plain.kind(), ErrorKind::Unavailable, "{plain}");
    assert!(plain.may_have_applied() && !plain.is_retryable(), "{plain}");
    linked.and(found.map(drop))?;
    assert!(!read?.is_empty());
    // What it had not read when it went on, it did not apply: it is a replica by then.
    let steps = store.steps(BUILD).await?;
    assert!(steps.iter().any(|step| keyed.as_ref().is_ok_and(|keyed| keyed.id == step.id)), "{keyed:?} {steps:?}");
    assert_eq!(steps.iter().filter(|step| step.name.as_str().starts_with("keyed")).count(), 1, "I5");
    assert_eq!(steps[0].urls.len(), 1, "U2");
    assert!(steps.iter().filter(|step| step.name == "plain").count() <= 1);
    Ok(())
}

/// A proxy before each node, which is where the cluster says that they are.
async fn cut_anywhere() -> TestResult {
    let cluster = RedisOptions::default().start_cluster_without_replicas()?;
    let mut proxies = Vec::new();
    for node in cluster.nodes() {
        let proxy = Proxy::start(node.address()).await?;
        node.query::<()>(&["CONFIG", "SET", "cluster-announce-port", &proxy.address().port().to_string()])?;
        proxies.push(proxy);
    }
    let addresses: Vec<_> = proxies.iter().map(|proxy| proxy.address().to_string()).collect();
    // Until each has told the others.
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
    let (store, other) = (connect(&url).await?, connect(&url).await?);
    told_honestly(proxy, store, other).await?;
    assert!(proxy.connections() > before + 120, "{} connections", proxy.connections() - before);
    Ok(())
}
