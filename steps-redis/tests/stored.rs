//! The storage format as `docs/redis.md` specifies it, and the errors for stored data that violates it.

use std::{error::Error, sync::Arc};

use redis::{FromRedisValue, IntoConnectionInfo};
use steps_core::{
    BuildId, Error as StepsError, ErrorKind, FinishStep, IdempotencyKey, ManualClock, NewStep, Results, StartStep,
    StateString, Step, StepName, StepNumber, StepSelector, StepsStore, StepsStoreExt, Timestamp,
};
use steps_redis::{DurabilityCheck, GREATEST_STEPS_A_BUILD, RedisOptions, RedisStore};
use test_servers::{KeyPrefix, shared_redis};

type TestResult = Result<(), Box<dyn Error>>;

/// A store, and a connection of the test's own to its server.
struct TestStore {
    keys: KeyPrefix,
    store: RedisStore,
    server: redis::Connection,
}

impl TestStore {
    async fn new() -> Result<Self, Box<dyn Error>> {
        let keys = shared_redis()?;
        let clock = Arc::new(ManualClock::new(Timestamp::MAX));
        let options = RedisOptions::from_url(&keys.url_with_prefix())?.with_clock(clock);
        let store = RedisStore::connect(options).await?;
        let server = redis::Client::open(keys.url().into_connection_info()?)?.get_connection()?;
        Ok(Self { keys, store, server })
    }

    /// The key of the steps of build 7.
    fn steps(&self) -> String {
        format!("{{{}:7}}", self.keys.prefix())
    }

    /// The key of the index of build 7.
    fn index(&self) -> String {
        format!("{}:index", self.steps())
    }

    fn redis<T: FromRedisValue>(&mut self, command: &[&[u8]]) -> T {
        let mut cmd = redis::Cmd::new();
        cmd.arg(command).query(&mut self.server).unwrap()
    }

    /// All keys of the store with their serialized values.
    fn dump(&mut self) -> Vec<(String, Vec<u8>)> {
        let mut keys: Vec<String> = self.redis(&[b"KEYS", format!("*{}*", self.keys.prefix()).as_bytes()]);
        keys.sort();
        keys.into_iter().map(|key| (key.clone(), self.redis(&[b"DUMP", key.as_bytes()]))).collect()
    }
}

fn build(id: i64) -> BuildId {
    BuildId::new(id).unwrap()
}

fn expect_corrupt<T: std::fmt::Debug>(result: Result<T, StepsError>) {
    let error = result.expect_err("the stored data is invalid");
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(!error.may_have_applied() && !error.is_retryable(), "{error}");
    let call = error.call().unwrap();
    assert!(call.build_id().is_some() || call.step_id().is_some(), "{error}");
}

#[tokio::test]
async fn the_format_is_that_of_its_page() -> TestResult {
    let mut env = TestStore::new().await?;
    let store = &env.store;
    store.add(7, "é", "queued").await?;
    let key = IdempotencyKey::new("k 1")?;
    let step = NewStep::new(build(7), StepName::new("é")?, StateString::new("queued")?).with_idempotency_key(key);
    let step = store.add_step(step).await?;
    store.start_step(step.id, StartStep::new(Timestamp::from_unix_micros(-2)?).with_locks_acquired(true)).await?;
    store.finish_step(step.id, FinishStep::new(Results::new(-1)).with_hidden(true)).await?;
    store.add_named_url(step.id, "log", "https://ci").await?;
    assert_eq!(step.id.get(), (7 << 20) + 1);

    let steps = env.steps();
    let index = env.index();
    let at = |time: i64| time.to_be_bytes().to_vec();
    let record = [
        b"1s\0\0\0\x01".to_vec(),
        at(-2),
        at(-2),
        at(Timestamp::MAX.unix_micros()),
        at(-1),
        b"\x01\x04".to_vec(),
        "é_1queued".into(),
    ];
    let got: Vec<u8> = env.redis(&[b"HGET", steps.as_bytes(), b"1"]);
    assert_eq!(got, record.concat());
    let url: Vec<u8> = env.redis(&[b"HGET", steps.as_bytes(), b"1:0"]);
    assert_eq!(url, b"1u\0\0\0\0\0\0\0\x03loghttps://ci");
    assert_eq!(env.redis::<usize>(&[b"HLEN", steps.as_bytes()]), 3);
    for (field, value) in [("#", "2"), ("né", "0"), ("né_1", "1"), ("h1é", "2"), ("kk 1", "1")] {
        let got: String = env.redis(&[b"HGET", index.as_bytes(), field.as_bytes()]);
        assert_eq!(got, value, "{field}");
    }
    // The sixth field is the digest of the url.
    assert_eq!(env.redis::<usize>(&[b"HLEN", index.as_bytes()]), 6);
    let format = format!("{{{}:format}}", env.keys.prefix());
    assert_eq!(env.redis::<String>(&[b"GET", format.as_bytes()]), "1");
    Ok(())
}

#[tokio::test]
async fn a_newer_format_and_that_of_another_program_are_refused() -> TestResult {
    let mut env = TestStore::new().await?;
    let format = format!("{{{}:format}}", env.keys.prefix());
    let set: [&[&[u8]]; 4] = [
        &[b"SET", format.as_bytes(), b"2"],
        &[b"SET", format.as_bytes(), b"one"],
        &[b"SET", format.as_bytes(), b"\xff"],
        &[b"LPUSH", format.as_bytes(), b"1"],
    ];
    for (command, expected) in
        set.into_iter().zip(["newer program", "another prefix", "another prefix", "another prefix"])
    {
        env.redis::<()>(&[b"DEL", format.as_bytes()]);
        env.redis::<redis::Value>(command);
        let before = env.dump();
        let options = RedisOptions::from_url(&env.keys.url_with_prefix())?;
        let error = RedisStore::connect(options).await.expect_err("the format is foreign");
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(env.dump(), before);
    }
    Ok(())
}

#[tokio::test]
async fn a_key_of_another_type_is_corrupt_and_changes_nothing() -> TestResult {
    for (broken, is_index) in [("steps", false), ("index", true)] {
        let mut env = TestStore::new().await?;
        let other = env.store.add(8, "compile", "").await?;
        let step = env.store.add(7, "compile", "").await?;
        let key = if is_index { env.index() } else { env.steps() };
        env.redis::<()>(&[b"DEL", key.as_bytes()]);
        env.redis::<()>(&[b"SET", key.as_bytes(), b"foreign"]);
        let before = env.dump();

        let store = &env.store;
        expect_corrupt(store.add(7, "test", "").await);
        expect_corrupt(store.add(7, "compile", "").await);
        expect_corrupt(store.add_named_url(step.id, "log", "u").await);
        expect_corrupt(store.get_step(StepSelector::name(build(7), StepName::new("compile")?)).await);
        if !is_index {
            expect_corrupt(store.start_step(step.id, StartStep::new(Timestamp::UNIX_EPOCH)).await);
            expect_corrupt(store.set_step_locks_acquired_at(step.id, Timestamp::UNIX_EPOCH).await);
            expect_corrupt(store.state(step.id, "running").await);
            expect_corrupt(store.finish(step.id, Results::SUCCESS).await);
            expect_corrupt(store.step(step.id).await);
            expect_corrupt(store.steps(7).await);
        }
        assert_eq!(env.dump(), before, "{broken}");
        // Other builds are not affected.
        env.store.state(other.id, "running").await?;
        assert_eq!(env.store.steps(8).await?.len(), 1);
    }
    Ok(())
}

#[tokio::test]
async fn a_value_that_does_not_parse_is_corrupt_and_changes_nothing() -> TestResult {
    let blank = [&[0; 4][..], &[0x80, 0, 0, 0, 0, 0, 0, 0].repeat(4), &[0]].concat();
    let record = |kind: u8, number: u32, blank: &[u8], name: &[u8], state: &[u8]| {
        [number.to_string().as_bytes(), &[kind], blank, &[name.len() as u8], name, state].concat()
    };
    let with = |offset: usize, bytes: &[u8]| {
        let mut blank = blank.clone();
        blank[offset..offset + bytes.len()].copy_from_slice(bytes);
        record(b's', 0, &blank, b"compile", b"")
    };
    let invalid: Vec<(&str, Vec<u8>)> = vec![
        ("no record", b"".to_vec()),
        ("a short record", blank.clone()),
        ("another kind of record", record(b'x', 0, &blank, b"compile", b"")),
        ("a record of another step", record(b's', 1, &blank, b"compile", b"")),
        ("a step beyond the largest number", record(b's', 1 << 20, &blank, b"compile", b"")),
        ("an invalid name", record(b's', 0, &blank, b"a\tb", b"")),
        ("a name that is not UTF-8", record(b's', 0, &blank, b"\xff", b"")),
        ("a name longer than the record", record(b's', 0, &blank, b"compile", b"")[..42].to_vec()),
        ("a state string with NUL", record(b's', 0, &blank, b"compile", b"\0")),
        ("a time out of range", with(4, &(Timestamp::MAX.unix_micros() + 1).to_be_bytes())),
        ("results out of range", with(28, &i64::MAX.to_be_bytes())),
        ("a url count without urls", with(0, &1_u32.to_be_bytes())),
        ("the largest url count", with(0, &u32::MAX.to_be_bytes())),
    ];
    let mut env = TestStore::new().await?;
    let step = env.store.add(7, "compile", "").await?;
    env.store.add(8, "compile", "").await?;
    let steps = env.steps();
    for (damage, record) in invalid {
        env.redis::<()>(&[b"HSET", steps.as_bytes(), b"0", &record]);
        let before = env.dump();
        println!("{damage}");
        expect_corrupt(env.store.steps(7).await);
        expect_corrupt(env.store.step(step.id).await);
        assert_eq!(env.dump(), before, "{damage}");
        assert_eq!(env.store.steps(8).await?.len(), 1, "{damage}");
    }

    // Values that a script reads before it writes.
    let index = env.index();
    env.redis::<()>(&[b"HSET", steps.as_bytes(), b"0", b"none"]);
    for (field, value) in [("#", "many"), ("#", "0"), ("h1compile", "one"), ("kkey", "none"), ("kkey", "5")] {
        env.redis::<()>(&[b"DEL", index.as_bytes()]);
        env.redis::<()>(&[
            b"HSET",
            index.as_bytes(),
            b"ncompile",
            b"0",
            b"#",
            b"1",
            field.as_bytes(),
            value.as_bytes(),
        ]);
        let before = env.dump();
        let key = IdempotencyKey::new("key")?;
        let name = if field == "#" { "test" } else { "compile" };
        let add = NewStep::new(build(7), StepName::new(name)?, StateString::default()).with_idempotency_key(key);
        println!("{field} {value}");
        expect_corrupt(env.store.add_step(add).await);
        expect_corrupt(env.store.state(step.id, "running").await);
        expect_corrupt(env.store.add_named_url(step.id, "log", "u").await);
        assert_eq!(env.dump(), before, "{field}");
    }
    Ok(())
}

#[tokio::test]
async fn a_step_or_url_that_is_missing_is_corrupt() -> TestResult {
    let mut env = TestStore::new().await?;
    let step = env.store.add(7, "compile", "").await?;
    env.store.add(7, "test", "").await?;
    for url in ["a", "b"] {
        env.store.add_named_url(step.id, "log", url).await?;
    }
    let steps = env.steps();
    let url: Vec<u8> = env.redis(&[b"HGET", steps.as_bytes(), b"0:0"]);
    env.redis::<()>(&[b"HDEL", steps.as_bytes(), b"0:0"]);
    expect_corrupt(env.store.steps(7).await);
    expect_corrupt(env.store.step(step.id).await);
    env.redis::<()>(&[b"HSET", steps.as_bytes(), b"0:0", &url]);
    assert_eq!(env.store.step(step.id).await?.unwrap().urls.len(), 2);
    // A url beyond the url count, and a url of a missing step.
    for (field, number, position) in [("0:9", 0_u32, 9_u32), ("5:0", 5, 0)] {
        let stray = [number.to_string().as_bytes(), b"u", &position.to_be_bytes(), &url[6..]].concat();
        env.redis::<()>(&[b"HSET", steps.as_bytes(), field.as_bytes(), &stray]);
        expect_corrupt(env.store.steps(7).await);
        env.redis::<()>(&[b"HDEL", steps.as_bytes(), field.as_bytes()]);
    }
    // A url in the field of the next one is not overwritten.
    let stray = [b"0u", &2_u32.to_be_bytes()[..], &url[6..]].concat();
    env.redis::<()>(&[b"HSET", steps.as_bytes(), b"0:2", &stray]);
    let before = env.dump();
    expect_corrupt(env.store.add_named_url(step.id, "log", "c").await);
    assert_eq!(env.dump(), before);
    env.redis::<()>(&[b"HDEL", steps.as_bytes(), b"0:2"]);
    assert_eq!(env.store.steps(7).await?.len(), 2);
    env.redis::<()>(&[b"HDEL", steps.as_bytes(), b"0"]);
    expect_corrupt(env.store.steps(7).await);
    Ok(())
}

#[tokio::test]
async fn a_full_build_takes_no_more_steps() -> TestResult {
    let mut env = TestStore::new().await?;
    let key = || IdempotencyKey::new("first").unwrap();
    let add = |name| NewStep::new(build(7), StepName::new(name).unwrap(), StateString::default());
    let first = env.store.add_step(add("compile").with_idempotency_key(key())).await?;
    let index = env.index();
    let max = GREATEST_STEPS_A_BUILD.to_string();
    env.redis::<()>(&[b"HSET", index.as_bytes(), b"#", max.as_bytes()]);
    let before = env.dump();
    for step in [add("test"), add("compile")] {
        let error = env.store.add_step(step).await.expect_err("the build is full");
        assert_eq!(error.kind(), ErrorKind::CapacityExceeded, "{error}");
        assert_eq!(error.call().unwrap().build_id(), Some(build(7)));
    }
    // I5, although the build is full.
    assert_eq!(env.store.add_step(add("test").with_idempotency_key(key())).await?, first);
    for number in [GREATEST_STEPS_A_BUILD as u32, u32::MAX] {
        let selector = StepSelector::number(build(7), StepNumber::new(number));
        assert_eq!(env.store.get_step(selector).await?, None);
    }
    assert_eq!(env.dump(), before);
    Ok(())
}

#[tokio::test]
async fn a_step_with_more_urls_than_fit_on_the_stack_of_lua_reads_back() -> TestResult {
    let env = Arc::new(TestStore::new().await?);
    let step = env.store.add(7, "compile", "").await?;
    let urls: Vec<_> = (0..10_000).map(|number| format!("https://ci.example.org/{number}")).collect();
    for url in &urls {
        env.store.add_named_url(step.id, "log", url.as_str()).await?;
    }
    let got: Step = env.store.step(step.id).await?.unwrap();
    assert_eq!(got.urls.iter().map(|url| url.url()).collect::<Vec<_>>(), urls);
    assert_eq!(env.store.steps(7).await?, [got]);
    Ok(())
}

#[tokio::test]
async fn a_server_with_settings_weaker_than_required_is_refused() -> TestResult {
    let settings = test_servers::RedisOptions::default();
    let server = tokio::task::spawn_blocking(move || settings.with_setting("appendonly", "yes").start()).await??;
    let options =
        || Ok::<_, StepsError>(RedisOptions::from_url(&server.url())?.with_durability_check(DurabilityCheck::Require));
    // The default of appendfsync is everysec.
    let error = RedisStore::connect(options()?).await.expect_err("a second may be lost");
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.to_string().contains("appendfsync is everysec"), "{error}");
    let mut admin = redis::Client::open(server.url())?.get_connection()?;
    redis::cmd("CONFIG").arg(&["SET", "appendfsync", "always"]).query::<()>(&mut admin)?;
    let store = RedisStore::connect(options()?).await?;
    assert!(store.describe().await?.promises.iter().any(|promise| promise.contains("machine")));
    redis::cmd("CONFIG").arg(&["SET", "maxmemory-policy", "allkeys-random"]).query::<()>(&mut admin)?;
    assert!(RedisStore::connect(options()?).await.is_err());
    assert!(store.describe().await?.warnings.iter().any(|warning| warning.contains("allkeys-random")));
    Ok(())
}
