//! Keys of a store that another program has damaged.

use std::collections::BTreeMap;

use libtest_mimic::Trial;
use steps_core::{
    BuildId, ErrorKind, Result, Results, StartStep, StepId, StepSelector, StepsStore, StepsStoreExt, Timestamp,
};
use steps_redis::RedisStore;
use test_servers::{Redis, RedisOptions, TestResult, children::keyed, trial};

use crate::connect;

const STEPS: &str = "{steps:7}";
const INDEX: &str = "{steps:7}:index";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("corrupt::a_key_of_another_type_is_corrupt_and_stays_as_it_is", other_types),
        trial("corrupt::an_invalid_step_is_corrupt_and_affects_no_other", damaged_steps),
        trial("corrupt::an_invalid_url_is_corrupt", damaged_urls),
        trial("corrupt::an_invalid_index_is_corrupt", damaged_index),
        trial("corrupt::no_operation_is_half_done_with_any_value_in_any_field", any_damage),
    ]
}

/// The operations that each test runs on the damaged build.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Operation {
    Add,
    AddKeyed,
    Start,
    Locks,
    State,
    Finish,
    Link,
    LinkAgain,
    GetById,
    GetByName,
    GetAll,
}

use Operation::{Add, AddKeyed, Finish, GetAll, GetById, GetByName, Link, LinkAgain, Locks, Start, State};

const ALL: [Operation; 11] = [Add, AddKeyed, Start, Locks, State, Finish, Link, LinkAgain, GetById, GetByName, GetAll];

/// A store with a build of three steps. The middle one is damaged by the tests, and has two urls.
struct TestBuild {
    server: Redis,
    store: RedisStore,
    steps: Vec<StepId>,
}

impl TestBuild {
    async fn new() -> TestResult<Self> {
        let server = RedisOptions::default().start()?;
        let store = connect(&server.url()).await?;
        let mut env = Self { server, store, steps: Vec::new() };
        env.fill().await?;
        Ok(env)
    }

    /// Restores the build.
    async fn fill(&mut self) -> TestResult {
        self.server.query::<()>(&["DEL", STEPS, INDEX])?;
        self.steps.clear();
        for _ in 0..2 {
            self.steps.push(self.store.add(7, "compile", "running").await?.id);
        }
        for url in ["a", "b"] {
            self.store.add_named_url(self.steps[1], "log", url).await?;
        }
        self.steps.push(self.store.add_step(keyed("keyed", "key")?).await?.id);
        Ok(())
    }

    async fn run(&self, operation: Operation, step: usize) -> Result<()> {
        let store = &self.store;
        let id = self.steps[step];
        let at = Timestamp::from_unix_micros(1).expect("it is a time");
        match operation {
            Add => store.add(7, "compile", "").await.map(drop),
            AddKeyed => store.add_step(keyed("keyed", "key").expect("it is a step")).await.map(drop),
            Start => store.start_step(id, StartStep::new(at).with_locks_acquired(true)).await,
            Locks => store.set_step_locks_acquired_at(id, at).await,
            State => store.state(id, "done").await,
            Finish => store.finish(id, Results::SUCCESS).await,
            Link => store.add_named_url(id, "log", "c").await,
            LinkAgain => store.add_named_url(id, "log", "a").await,
            GetById => store.step(id).await.map(drop),
            GetByName => {
                let name = ["compile", "compile_1", "keyed"][step].parse()?;
                store.get_step(StepSelector::Name { build_id: BuildId::new(7)?, name }).await.map(drop)
            }
            GetAll => store.steps(7).await.map(drop),
        }
    }

    /// The values of the build's two keys.
    fn values(&self) -> TestResult<Vec<StoredValue>> {
        [STEPS, INDEX].into_iter().map(|key| StoredValue::of(&self.server, key)).collect()
    }

    /// Checks that exactly these operations on this step are corrupt, and that they change nothing.
    async fn expect_corrupt(&self, step: usize, damage: &str, corrupt: &[Operation]) -> TestResult {
        let mut failed = Vec::new();
        for operation in ALL {
            // An operation that succeeds changes the state for the next one.
            let before = self.values()?;
            match self.run(operation, step).await {
                Ok(()) => {}
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Corrupt, "{damage}: {operation:?}: {error}");
                    assert!(!error.is_retryable() && !error.may_have_applied(), "{damage}: {error}");
                    assert!(error.to_string().contains('7'), "the build or step is named: {error}");
                    assert!(self.values()? == before, "{damage}: {operation:?} changed something");
                    failed.push(operation);
                }
            }
        }
        assert_eq!(failed, corrupt, "{damage}");
        Ok(())
    }
}

#[derive(Debug, PartialEq)]
enum StoredValue {
    Missing,
    Hash(BTreeMap<Vec<u8>, Vec<u8>>),
    Other(Vec<u8>),
}

impl StoredValue {
    fn of(server: &Redis, key: &str) -> TestResult<Self> {
        Ok(match server.query::<String>(&["TYPE", key])?.as_str() {
            "none" => Self::Missing,
            "hash" => Self::Hash(server.query(&["HGETALL", key])?),
            _ => Self::Other(server.query(&["DUMP", key])?),
        })
    }
}

async fn other_types() -> TestResult {
    let mut env = TestBuild::new().await?;
    let of_steps = [Add, AddKeyed, Start, Locks, State, Finish, Link, LinkAgain, GetById, GetByName, GetAll];
    let of_index = [Add, AddKeyed, Link, LinkAgain, GetByName];
    for make in [&["SET", "text"][..], &["RPUSH", "item"], &["ZADD", "1", "member"], &["XADD", "*", "field", "value"]] {
        for (key, corrupt) in [(STEPS, &of_steps[..]), (INDEX, &of_index)] {
            env.fill().await?;
            env.server.query::<()>(&["DEL", key])?;
            env.server.query::<()>(&[&make[..1], &[key], &make[1..]].concat())?;
            env.expect_corrupt(1, &format!("{key} made by {make:?}"), corrupt).await?;
            // Other builds are not affected.
            env.store.add(8, "compile", "").await?;
        }
    }
    Ok(())
}

/// Truncates or replaces the record of the middle step.
async fn damaged_steps() -> TestResult {
    let mut env = TestBuild::new().await?;
    let StoredValue::Hash(whole) = StoredValue::of(&env.server, STEPS)? else { return Err("there is a hash".into()) };
    let record = &whole[&b"1"[..]];
    let name_ends = record.len() - "running".len();
    let mut damages: Vec<(Vec<u8>, &[Operation])> = Vec::new();
    let with_the_step = &[Start, Locks, State, Finish, Link, LinkAgain, GetById, GetByName, GetAll][..];
    let reads = &[GetById, GetByName, GetAll][..];
    for length in 0..name_ends {
        damages.push((record[..length].to_vec(), with_the_step));
    }
    for kind in [b'u', b'x', 0] {
        damages.push(([&record[..1], &[kind], &record[2..]].concat(), with_the_step));
    }
    // A state string that is not UTF-8, or has a NUL.
    damages.push(([record, &b"\xff"[..]].concat(), reads));
    damages.push(([record, &b"\0"[..]].concat(), reads));
    // The number of another step, of a missing step, and invalid numbers.
    for number in ["0", "9", "01", "1048576", "4294967296", "", "-1", "one"] {
        damages.push(([number.as_bytes(), &record[1..]].concat(), with_the_step));
    }
    // The largest url count, for which the store must not read all urls.
    damages.push(([&record[..2], &u32::MAX.to_be_bytes(), &record[6..]].concat(), reads));
    for (damage, corrupt) in damages {
        let what = format!("{:?}", String::from_utf8_lossy(&damage));
        // Each operation runs on a restored build, since an earlier operation might repair the damage.
        for operation in ALL {
            env.fill().await?;
            set(&env.server, STEPS, b"1", &damage)?;
            let before = env.values()?;
            let result = env.run(operation, 1).await;
            assert_eq!(result.is_err(), corrupt.contains(&operation), "{what}: {operation:?}: {result:?}");
            if let Err(error) = result {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}");
                assert!(!error.is_retryable() && !error.may_have_applied());
                assert!(env.values()? == before, "{what}: {operation:?} changed something");
            }
        }
        // The other steps of the build are not affected.
        for step in [0, 2] {
            for operation in [Start, Locks, State, Finish, Link, GetById, GetByName] {
                env.run(operation, step).await?;
            }
        }
        env.store.add(7, "compile", "").await?;
    }
    Ok(())
}

/// Truncates or replaces the record of the second url.
async fn damaged_urls() -> TestResult {
    let mut env = TestBuild::new().await?;
    let StoredValue::Hash(whole) = StoredValue::of(&env.server, STEPS)? else { return Err("there is a hash".into()) };
    let record = &whole[&b"1:1"[..]];
    let of_step = |number: &[u8]| [number, &record[1..]].concat();
    let with = |offset: usize, number: u32| [&record[..offset], &number.to_be_bytes(), &record[offset + 4..]].concat();
    // A wrong step, position or length of the name.
    let numbers = [of_step(b"0"), of_step(b"9"), of_step(b""), with(2, 0), with(2, 5), with(6, 999)];
    let others = [record[..record.len() - 5].to_vec(), [record, &b"\xff"[..]].concat(), whole[&b"0"[..]].clone()];
    for damage in numbers.into_iter().chain(others) {
        env.fill().await?;
        set(&env.server, STEPS, b"1:1", &damage)?;
        // Writes do not read this record.
        env.expect_corrupt(1, &format!("{damage:?}"), &[GetById, GetByName, GetAll]).await?;
        assert!(env.store.step(env.steps[0]).await?.is_some());
    }
    Ok(())
}

async fn damaged_index() -> TestResult {
    let mut env = TestBuild::new().await?;
    for (field, value, corrupt) in [
        ("#", "many", &[Add][..]),
        ("#", "-1", &[Add]),
        ("#", "1.5", &[Add]),
        ("#", "01", &[Add]),
        // Too many digits. The build must not be reported as full.
        ("#", "10000000", &[Add]),
        // Less than the number of steps: the next step has a record already.
        ("#", "1", &[Add]),
        ("h1compile", "one", &[Add]),
        ("h1compile", "0", &[Add]),
        ("h1compile", "nan", &[Add]),
        ("h1compile", "1.5", &[Add]),
        ("ncompile_1", "one", &[GetByName]),
        ("kkey", "one", &[AddKeyed]),
        ("kkey", "9", &[AddKeyed]),
    ] {
        env.fill().await?;
        env.server.query::<()>(&["HSET", INDEX, field, value])?;
        env.expect_corrupt(1, &format!("{field} is {value}"), corrupt).await?;
    }
    Ok(())
}

/// Removes each field of the build's keys, or sets it to one of several values. Each operation then succeeds, or is
/// corrupt and changes nothing. Another build is not affected.
async fn any_damage() -> TestResult {
    let mut env = TestBuild::new().await?;
    env.store.add(8, "compile", "").await?;
    let values: [&[u8]; 6] = [b"", b"-1", b"1e400", b"nan", b"\xff\xff\xff\xff", &[b's'; 60]];
    for key in [STEPS, INDEX] {
        let StoredValue::Hash(fields) = StoredValue::of(&env.server, key)? else {
            return Err("there is a hash".into());
        };
        for field in fields.keys() {
            for value in [None].into_iter().chain(values.map(Some)) {
                env.fill().await?;
                match value {
                    Some(value) => set(&env.server, key, field, value)?,
                    None => remove(&env.server, key, field)?,
                }
                let what = format!("{key} {} {value:?}", String::from_utf8_lossy(field));
                let mut before = env.values()?;
                for operation in ALL {
                    for step in 1..3 {
                        let result = env.run(operation, step).await;
                        let after = env.values()?;
                        if let Err(error) = result {
                            let is_expected = match error.kind() {
                                ErrorKind::Corrupt => true,
                                ErrorKind::NotFound => value.is_none(),
                                // The step count may be valid but too large.
                                ErrorKind::CapacityExceeded => field == b"#",
                                _ => false,
                            };
                            assert!(is_expected, "{what}: {operation:?}: {error}");
                            assert!(after == before, "{what}: {operation:?} changed something");
                        }
                        before = after;
                    }
                }
            }
        }
    }
    assert_eq!(env.store.steps(8).await?.len(), 1);
    Ok(())
}

fn set(server: &Redis, key: &str, field: &[u8], value: &[u8]) -> TestResult {
    Ok(redis::cmd("HSET").arg(key).arg(field).arg(value).query(&mut driver(server)?)?)
}

fn remove(server: &Redis, key: &str, field: &[u8]) -> TestResult {
    Ok(redis::cmd("HDEL").arg(key).arg(field).query(&mut driver(server)?)?)
}

fn driver(server: &Redis) -> TestResult<redis::Connection> {
    Ok(redis::Client::open(server.url())?.get_connection()?)
}
