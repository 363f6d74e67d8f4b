//! Servers start, restart with their persistent data, and end with the process that started them.
//!
//! The tests start this program as a child, with a job in an environment variable.

use std::{
    env,
    error::Error,
    io::{BufRead, BufReader, Write, stdin},
    net::TcpStream,
    path::Path,
    process::{Command, ExitCode, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use libtest_mimic::{Arguments, Failed, Trial};
use test_servers::{PostgresOptions, REDIS_CLUSTER_URL, REDIS_URL, RedisOptions, shared_redis, shared_redis_cluster};

type TestResult = Result<(), Box<dyn Error>>;

const JOB: &str = "STEPS_TEST_SERVERS_JOB";

fn main() -> ExitCode {
    if let Ok(job) = env::var(JOB) {
        run(&job).expect("the job is done");
        return ExitCode::SUCCESS;
    }
    let trials = vec![
        trial("persistent_data_of_a_redis_survives_its_death", persistent_data_of_a_redis),
        trial("a_paused_redis_hangs_and_goes_on", paused_redis),
        trial("a_cluster_fails_over_and_heals", cluster_fails_over),
        trial("a_cluster_may_have_no_replicas", cluster_without_replicas),
        trial("servers_end_with_a_killed_process", servers_end),
        trial("keys_on_a_given_server_are_deleted", given_servers),
        trial("a_missing_server_names_its_package", missing_server),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn trial(name: &str, test: fn() -> TestResult) -> Trial {
    Trial::test(name, move || test().map_err(|error| Failed::from(error.to_string())))
}

/// Runs the job of a child.
fn run(job: &str) -> TestResult {
    match job {
        "start" => {
            let postgres = PostgresOptions::default().start()?;
            let redis = RedisOptions::default().start()?;
            let cluster = RedisOptions::default().start_cluster()?;
            println!("{} {} {}", postgres.url(), redis.url(), cluster.url());
            let folders = cluster.nodes().iter().chain([&redis]).map(|node| node.folder().display().to_string());
            println!("{}", folders.collect::<Vec<_>>().join(" "));
            stdin().read_line(&mut String::new())?;
        }
        "share" => {
            for keys in [shared_redis()?, shared_redis_cluster()?] {
                println!("{}", keys.prefix());
                // Wait until the parent has written some keys.
                stdin().read_line(&mut String::new())?;
            }
        }
        "fail" => println!("{}", shared_redis().expect_err("there is no such program")),
        _ => return Err(format!("unknown job {job}").into()),
    }
    Ok(())
}

fn child(job: &str) -> std::io::Result<Command> {
    let mut command = Command::new(env::current_exe()?);
    command.env(JOB, job).stdin(Stdio::piped()).stdout(Stdio::piped());
    Ok(command)
}

fn wait_until(what: &str, condition: impl Fn() -> bool) -> TestResult {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() > Duration::from_secs(60) {
            return Err(format!("not within a minute: {what}").into());
        }
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn persistent_data_of_a_redis() -> TestResult {
    let durable = RedisOptions::default().with_setting("appendonly", "yes").with_setting("appendfsync", "always");
    for (mut server, is_persistent) in [(durable.start()?, true), (RedisOptions::default().start()?, false)] {
        let url = server.url();
        server.query::<()>(&["SET", "step", "compile"])?;
        server.kill()?;
        assert!(server.query::<()>(&["PING"]).is_err(), "it is dead");
        server.start_again()?;
        assert_eq!(server.query::<bool>(&["EXISTS", "step"])?, is_persistent);
        server.stop()?;
        server.start_again()?;
        assert_eq!(server.query::<bool>(&["EXISTS", "step"])?, is_persistent);
        assert_eq!(server.url(), url);
    }
    // A server that ends by itself can be started again as well.
    let mut server = RedisOptions::default().with_setting("maxmemory", "100mb").start()?;
    let _ = server.query::<()>(&["SHUTDOWN", "NOSAVE"]);
    server.start_again()?;
    assert_eq!(server.query::<Vec<String>>(&["CONFIG", "GET", "maxmemory"])?, ["maxmemory", "104857600"]);
    Ok(())
}

fn paused_redis() -> TestResult {
    let server = RedisOptions::default().start()?;
    server.pause()?;
    assert!(TcpStream::connect(server.address()).is_ok(), "it still takes connections");
    assert!(server.query::<()>(&["PING"]).is_err(), "it does not answer");
    server.resume()?;
    server.query::<()>(&["PING"])?;
    // A paused server also ends when it is dropped.
    server.pause()?;
    let address = server.address();
    drop(server);
    assert!(TcpStream::connect(address).is_err());
    Ok(())
}

fn cluster_without_replicas() -> TestResult {
    let cluster = RedisOptions::default().start_cluster_without_replicas()?;
    assert_eq!(cluster.nodes().len(), 3);
    let primary = cluster.primary_of("step")?;
    assert_eq!(cluster.replicas_of(primary)?, []);
    Ok(cluster.nodes()[primary].query::<()>(&["SET", "step", "compile"])?)
}

fn cluster_fails_over() -> TestResult {
    let mut cluster = RedisOptions::default().start_cluster()?;
    let primary = cluster.primary_of("step")?;
    let replicas = cluster.replicas_of(primary)?;
    assert_eq!(replicas, [primary + 3]);
    cluster.nodes()[primary].query::<()>(&["SET", "step", "compile"])?;
    let replica = &cluster.nodes()[replicas[0]];
    wait_until("the replica has it", || replica.query::<usize>(&["DBSIZE"]).is_ok_and(|keys| keys == 1))?;

    cluster.nodes_mut()[primary].kill()?;
    wait_until("a replica takes over", || cluster.primary_of("step").is_ok_and(|now| [now] == replicas[..]))?;
    cluster.wait_until_ok()?;
    let now = cluster.primary_of("step")?;
    assert_eq!(cluster.nodes()[now].query::<String>(&["GET", "step"])?, "compile");

    cluster.nodes_mut()[primary].start_again()?;
    cluster.wait_until_ok()?;
    assert_eq!(cluster.primary_of("step")?, now);
    assert_eq!(cluster.replicas_of(now)?, [primary]);
    Ok(())
}

fn servers_end() -> TestResult {
    let mut child = child("start")?.spawn()?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("it is piped")?).lines();
    let (urls, folders) = match (lines.next(), lines.next()) {
        (Some(urls), Some(folders)) => (urls?, folders?),
        _ => return Err("the child did not start its servers".into()),
    };
    let addresses: Vec<_> = urls.split([' ', ',', '/', '@']).filter(|word| word.starts_with("127.0.0.1:")).collect();
    assert_eq!(addresses.len(), 1 + 1 + 6, "{urls}");
    assert!(addresses.iter().all(|address| TcpStream::connect(address).is_ok()));
    child.kill()?;
    child.wait()?;
    let is_gone = |folder| !Path::new(folder).exists() && !Path::new(&format!("{folder}.ended")).exists();
    wait_until("the servers end", || addresses.iter().all(|address| TcpStream::connect(address).is_err()))?;
    wait_until("their folders are removed", || folders.split(' ').all(is_gone))
}

fn given_servers() -> TestResult {
    let node = RedisOptions::default().start()?;
    let cluster = RedisOptions::default().start_cluster()?;
    let mut child = child("share")?.env(REDIS_URL, node.url()).env(REDIS_CLUSTER_URL, cluster.url()).spawn()?;
    let (mut stdin, stdout) = child.stdin.take().zip(child.stdout.take()).ok_or("both are piped")?;
    for (prefix, of_cluster) in BufReader::new(stdout).lines().zip([false, true]) {
        let prefix = prefix?;
        for key in (0..50).flat_map(|key| [format!("{prefix}:{key}"), format!("{{{prefix}:{key}}}"), key.to_string()]) {
            let server = if of_cluster { &cluster.nodes()[cluster.primary_of(&key)?] } else { &node };
            server.query::<()>(&["SET", &key, "compile"])?;
        }
        stdin.write_all(b"\n")?;
    }
    assert!(child.wait()?.success());
    // Keys without the prefix still exist.
    assert_eq!(node.query::<usize>(&["DBSIZE"])?, 50);
    let sizes = cluster.nodes()[..3].iter().map(|primary| primary.query::<usize>(&["DBSIZE"]));
    assert_eq!(sizes.sum::<Result<usize, _>>()?, 50);
    Ok(())
}

fn missing_server() -> TestResult {
    let stdout = child("fail")?.env_remove(REDIS_URL).env("PATH", "").output()?.stdout;
    assert_eq!(String::from_utf8(stdout)?, "Redis is not installed; install the package redis-server\n");
    Ok(())
}
