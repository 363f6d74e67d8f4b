//! What is stored under which key, and what becomes of what is not as the store made it. `docs/redis.md` says so to
//! those who write or repair data by other means.

use std::{error::Error, sync::Arc};

use redis::{FromRedisValue, IntoConnectionInfo};
use steps_core::{
    BuildId, Error as StepsError, ErrorKind, FinishStep, IdempotencyKey, ManualClock, NewStep, Results, StartStep,
    StateString, Step, StepName, StepNumber, StepSelector, StepsStore, StepsStoreExt, Timestamp,
};
use steps_redis::{Durability, GREATEST_STEPS_A_BUILD, RedisOptions, RedisStore};
use test_servers::{KeyPrefix, shared_redis};

type TestResult = Result<(), Box<dyn Error>>;

/// A store, and the server by hand.
struct Stage {
    place: KeyPrefix,
    store: RedisStore,
    server: redis::Connection,
}

impl Stage {
    async fn new() -> Result<Self, Box<dyn Error>> {
        let place = shared_redis()?;
        let clock = Arc::new(ManualClock::new(Timestamp::MAX));
        let options = RedisOptions::from_url(&place.url_with_prefix())?.with_clock(clock);
        let store = RedisStore::connect(options).await?;
        let server = redis::Client::open(place.url().into_connection_info()?)?.get_connection()?;
        Ok(Self { place, store, server })
    }

    /// The key of build 7's steps, and of its index.
    fn steps(&self) -> String {
        format!("{{{}:7}}", self.place.prefix())
    }

    fn index(&self) -> String {
        format!("{}:index", self.steps())
    }

    fn redis<T: FromRedisValue>(&mut self, command: &[&[u8]]) -> T {
        let mut cmd = redis::Cmd::new();
        cmd.arg(command).query(&mut self.server).unwrap()
    }

    /// All keys and what is in them, by the server's own account.
    fn dump(&mut self) -> Vec<(String, Vec<u8>)> {
        let mut keys: Vec<String> = self.redis(&[b"KEYS", format!("*{}*", self.place.prefix()).as_bytes()]);
        keys.sort();
        keys.into_iter().map(|key| (key.clone(), self.redis(&[b"DUMP", key.as_bytes()]))).collect()
    }
}

fn build(id: i64) -> BuildId {
    BuildId::new(id).unwrap()
}

fn corrupt<T: std::fmt::Debug>(answer: Result<T, StepsError>) {
    let error = answer.expect_err("what is stored cannot be read");
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(!error.may_have_applied() && !error.is_retryable(), "{error}");
    let call = error.call().unwrap();
    assert!(call.build_id().is_some() || call.step_id().is_some(), "{error}");
}

#[tokio::test]
async fn the_format_is_that_of_its_page() -> TestResult {
    let mut stage = Stage::new().await?;
    let store = &stage.store;
    store.add(7, "é", "queued").await?;
    let key = IdempotencyKey::new("k 1")?;
    let step = NewStep::new(build(7), StepName::new("é")?, StateString::new("queued")?).with_idempotency_key(key);
    let step = store.add_step(step).await?;
    store.start_step(step.id, StartStep::new(Timestamp::from_unix_micros(-2)?).with_locks_acquired(true)).await?;
    store.finish_step(step.id, FinishStep::new(Results::new(-1)).with_hidden(true)).await?;
    store.add_named_url(step.id, "log", "https://ci").await?;
    assert_eq!(step.id.get(), (7 << 20) + 1);

    let (steps, index) = (stage.steps(), stage.index());
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
    let got: Vec<u8> = stage.redis(&[b"HGET", steps.as_bytes(), b"1"]);
    assert_eq!(got, record.concat());
    let url: Vec<u8> = stage.redis(&[b"HGET", steps.as_bytes(), b"1:0"]);
    assert_eq!(url, b"1u\0\0\0\0\0\0\0\x03loghttps://ci");
    assert_eq!(stage.redis::<usize>(&[b"HLEN", steps.as_bytes()]), 3);
    for (field, value) in [("#", "2"), ("né", "0"), ("né_1", "1"), ("h1é", "2"), ("kk 1", "1")] {
        let got: String = stage.redis(&[b"HGET", index.as_bytes(), field.as_bytes()]);
        assert_eq!(got, value, "{field}");
    }
    // And the digest of the pair.
    assert_eq!(stage.redis::<usize>(&[b"HLEN", index.as_bytes()]), 6);
    let format = format!("{{{}:format}}", stage.place.prefix());
    assert_eq!(stage.redis::<String>(&[b"GET", format.as_bytes()]), "1");
    Ok(())
}

#[tokio::test]
async fn a_newer_format_and_that_of_another_program_are_refused() -> TestResult {
    let mut stage = Stage::new().await?;
    let format = format!("{{{}:format}}", stage.place.prefix());
    let set: [&[&[u8]]; 4] = [
        &[b"SET", format.as_bytes(), b"2"],
        &[b"SET", format.as_bytes(), b"one"],
        &[b"SET", format.as_bytes(), b"\xff"],
        &[b"LPUSH", format.as_bytes(), b"1"],
    ];
    for (command, said) in set.into_iter().zip(["newer program", "another prefix", "another prefix", "another prefix"])
    {
        stage.redis::<()>(&[b"DEL", format.as_bytes()]);
        stage.redis::<redis::Value>(command);
        let before = stage.dump();
        let options = RedisOptions::from_url(&stage.place.url_with_prefix())?;
        let error = RedisStore::connect(options).await.expect_err("the format is not its own");
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().contains(said), "{error}");
        assert_eq!(stage.dump(), before);
    }
    Ok(())
}

#[tokio::test]
async fn a_key_of_another_type_is_corrupt_and_changes_nothing() -> TestResult {
    for (broken, is_index) in [("steps", false), ("index", true)] {
        let mut stage = Stage::new().await?;
        let kept = stage.store.add(8, "compile", "").await?;
        let step = stage.store.add(7, "compile", "").await?;
        let key = if is_index { stage.index() } else { stage.steps() };
        stage.redis::<()>(&[b"DEL", key.as_bytes()]);
        stage.redis::<()>(&[b"SET", key.as_bytes(), b"somebody else's"]);
        let before = stage.dump();

        let store = &stage.store;
        corrupt(store.add(7, "test", "").await);
        corrupt(store.add(7, "compile", "").await);
        corrupt(store.add_named_url(step.id, "log", "u").await);
        corrupt(store.get_step(StepSelector::name(build(7), StepName::new("compile")?)).await);
        if !is_index {
            corrupt(store.start_step(step.id, StartStep::new(Timestamp::UNIX_EPOCH)).await);
            corrupt(store.set_step_locks_acquired_at(step.id, Timestamp::UNIX_EPOCH).await);
            corrupt(store.state(step.id, "running").await);
            corrupt(store.finish(step.id, Results::SUCCESS).await);
            corrupt(store.step(step.id).await);
            corrupt(store.steps(7).await);
        }
        assert_eq!(stage.dump(), before, "{broken}");
        // The others go on.
        stage.store.state(kept.id, "running").await?;
        assert_eq!(stage.store.steps(8).await?.len(), 1);
    }
    Ok(())
}

#[tokio::test]
async fn a_value_that_does_not_parse_is_corrupt_and_changes_nothing() -> TestResult {
    let blank = [&[0; 4][..], &[0x80, 0, 0, 0, 0, 0, 0, 0].repeat(4), &[0]].concat();
    let record = |kind: u8, number: u32, blank: &[u8], name: &[u8], state: &[u8]| {
        [number.to_string().as_bytes(), &[kind], blank, &[name.len() as u8], name, state].concat()
    };
    let with = |place: usize, bytes: &[u8]| {
        let mut blank = blank.clone();
        blank[place..place + bytes.len()].copy_from_slice(bytes);
        record(b's', 0, &blank, b"compile", b"")
    };
    let unreadable: Vec<(&str, Vec<u8>)> = vec![
        ("no record", b"".to_vec()),
        ("a short record", blank.clone()),
        ("another kind of record", record(b'x', 0, &blank, b"compile", b"")),
        ("a record of another step", record(b's', 1, &blank, b"compile", b"")),
        ("a step past the greatest number", record(b's', 1 << 20, &blank, b"compile", b"")),
        ("a name that is none", record(b's', 0, &blank, b"7zip", b"")),
        ("a name that is not UTF-8", record(b's', 0, &blank, b"\xff", b"")),
        ("a name longer than the record", record(b's', 0, &blank, b"compile", b"")[..42].to_vec()),
        ("a state string with NUL", record(b's', 0, &blank, b"compile", b"\0")),
        ("a time after the last", with(4, &(Timestamp::MAX.unix_micros() + 1).to_be_bytes())),
        ("results that are none", with(28, &i64::MAX.to_be_bytes())),
        ("urls that are not there", with(0, &1_u32.to_be_bytes())),
        ("more urls than anything", with(0, &u32::MAX.to_be_bytes())),
    ];
    let mut stage = Stage::new().await?;
    let step = stage.store.add(7, "compile", "").await?;
    stage.store.add(8, "compile", "").await?;
    let steps = stage.steps();
    for (what, record) in unreadable {
        stage.redis::<()>(&[b"HSET", steps.as_bytes(), b"0", &record]);
        let before = stage.dump();
        println!("{what}");
        corrupt(stage.store.steps(7).await);
        corrupt(stage.store.step(step.id).await);
        assert_eq!(stage.dump(), before, "{what}");
        assert_eq!(stage.store.steps(8).await?.len(), 1, "{what}");
    }

    // What a script has to read before it writes.
    let index = stage.index();
    stage.redis::<()>(&[b"HSET", steps.as_bytes(), b"0", b"none"]);
    for (field, value) in [("#", "many"), ("#", "0"), ("h1compile", "one"), ("kkey", "none"), ("kkey", "5")] {
        stage.redis::<()>(&[b"DEL", index.as_bytes()]);
        stage.redis::<()>(&[
            b"HSET",
            index.as_bytes(),
            b"ncompile",
            b"0",
            b"#",
            b"1",
            field.as_bytes(),
            value.as_bytes(),
        ]);
        let before = stage.dump();
        let key = IdempotencyKey::new("key")?;
        let name = if field == "#" { "test" } else { "compile" };
        let add = NewStep::new(build(7), StepName::new(name)?, StateString::default()).with_idempotency_key(key);
        println!("{field} {value}");
        corrupt(stage.store.add_step(add).await);
        corrupt(stage.store.state(step.id, "running").await);
        corrupt(stage.store.add_named_url(step.id, "log", "u").await);
        assert_eq!(stage.dump(), before, "{field}");
    }
    Ok(())
}

#[tokio::test]
async fn a_step_or_url_that_is_missing_is_corrupt() -> TestResult {
    let mut stage = Stage::new().await?;
    let step = stage.store.add(7, "compile", "").await?;
    stage.store.add(7, "test", "").await?;
    for url in ["a", "b"] {
        stage.store.add_named_url(step.id, "log", url).await?;
    }
    let steps = stage.steps();
    let url: Vec<u8> = stage.redis(&[b"HGET", steps.as_bytes(), b"0:0"]);
    stage.redis::<()>(&[b"HDEL", steps.as_bytes(), b"0:0"]);
    corrupt(stage.store.steps(7).await);
    corrupt(stage.store.step(step.id).await);
    stage.redis::<()>(&[b"HSET", steps.as_bytes(), b"0:0", &url]);
    assert_eq!(stage.store.step(step.id).await?.unwrap().urls.len(), 2);
    // A url past the last, and one of a step that is not there.
    for (field, number, place) in [("0:9", 0_u32, 9_u32), ("5:0", 5, 0)] {
        let stray = [number.to_string().as_bytes(), b"u", &place.to_be_bytes(), &url[6..]].concat();
        stage.redis::<()>(&[b"HSET", steps.as_bytes(), field.as_bytes(), &stray]);
        corrupt(stage.store.steps(7).await);
        stage.redis::<()>(&[b"HDEL", steps.as_bytes(), field.as_bytes()]);
    }
    // One where the next is to go stays, and is not taken for it.
    let stray = [b"0u", &2_u32.to_be_bytes()[..], &url[6..]].concat();
    stage.redis::<()>(&[b"HSET", steps.as_bytes(), b"0:2", &stray]);
    let before = stage.dump();
    corrupt(stage.store.add_named_url(step.id, "log", "c").await);
    assert_eq!(stage.dump(), before);
    stage.redis::<()>(&[b"HDEL", steps.as_bytes(), b"0:2"]);
    assert_eq!(stage.store.steps(7).await?.len(), 2);
    stage.redis::<()>(&[b"HDEL", steps.as_bytes(), b"0"]);
    corrupt(stage.store.steps(7).await);
    Ok(())
}

#[tokio::test]
async fn a_full_build_takes_no_more_steps() -> TestResult {
    let mut stage = Stage::new().await?;
    let key = || IdempotencyKey::new("first").unwrap();
    let add = |name| NewStep::new(build(7), StepName::new(name).unwrap(), StateString::default());
    let first = stage.store.add_step(add("compile").with_idempotency_key(key())).await?;
    let (index, most) = (stage.index(), GREATEST_STEPS_A_BUILD.to_string());
    stage.redis::<()>(&[b"HSET", index.as_bytes(), b"#", most.as_bytes()]);
    let before = stage.dump();
    for step in [add("test"), add("compile")] {
        let error = stage.store.add_step(step).await.expect_err("the build is full");
        assert_eq!(error.kind(), ErrorKind::CapacityExceeded, "{error}");
        assert_eq!(error.call().unwrap().build_id(), Some(build(7)));
    }
    // I5: whatever else is asked for.
    assert_eq!(stage.store.add_step(add("test").with_idempotency_key(key())).await?, first);
    for number in [GREATEST_STEPS_A_BUILD as u32, u32::MAX] {
        let selector = StepSelector::number(build(7), StepNumber::new(number));
        assert_eq!(stage.store.get_step(selector).await?, None);
    }
    assert_eq!(stage.dump(), before);
    Ok(())
}

#[tokio::test]
async fn a_step_with_more_urls_than_lua_has_room_for_reads_back() -> TestResult {
    let stage = Arc::new(Stage::new().await?);
    let step = stage.store.add(7, "compile", "").await?;
    let urls: Vec<_> = (0..10_000).map(|number| format!("https://ci.example.org/{number}")).collect();
    let links = urls.iter().map(|url| stage.store.add_named_url(step.id, "log", url.as_str()));
    for link in links {
        link.await?;
    }
    let got: Step = stage.store.step(step.id).await?.unwrap();
    assert_eq!(got.urls.iter().map(|url| url.url()).collect::<Vec<_>>(), urls);
    assert_eq!(stage.store.steps(7).await?, [got]);
    Ok(())
}

#[tokio::test]
async fn a_server_that_keeps_less_than_required_is_refused() -> TestResult {
    let url = test_servers::RedisOptions::default();
    let server = tokio::task::spawn_blocking(move || url.with_setting("appendonly", "yes").start()).await??;
    let options = || Ok::<_, StepsError>(RedisOptions::from_url(&server.url())?.with_durability(Durability::Required));
    // Every second, unless it is set.
    let error = RedisStore::connect(options()?).await.expect_err("a second may be lost");
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.to_string().contains("appendfsync is everysec"), "{error}");
    let mut by_hand = redis::Client::open(server.url())?.get_connection()?;
    redis::cmd("CONFIG").arg(&["SET", "appendfsync", "always"]).query::<()>(&mut by_hand)?;
    let store = RedisStore::connect(options()?).await?;
    assert!(store.describe().await?.promises.iter().any(|promise| promise.contains("machine")));
    redis::cmd("CONFIG").arg(&["SET", "maxmemory-policy", "allkeys-random"]).query::<()>(&mut by_hand)?;
    assert!(RedisStore::connect(options()?).await.is_err());
    assert!(store.describe().await?.warnings.iter().any(|warning| warning.contains("allkeys-random")));
    Ok(())
}
