//! What others wrote to the keys of a store.

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
        trial("corrupt::a_step_that_cannot_be_read_back_is_corrupt_and_spoils_no_other", damaged_steps),
        trial("corrupt::a_url_that_cannot_be_read_back_is_corrupt", damaged_urls),
        trial("corrupt::an_index_that_cannot_be_read_back_is_corrupt", damaged_index),
        trial("corrupt::whatever_stands_in_a_field_nothing_is_half_done", any_damage),
    ]
}

/// What a call is about.
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

/// A build of three steps, of which the one in the middle is asked for, and has two urls.
struct Scene {
    server: Redis,
    store: RedisStore,
    steps: Vec<StepId>,
}

impl Scene {
    async fn new() -> TestResult<Self> {
        let server = RedisOptions::default().start()?;
        let store = connect(&server.url()).await?;
        let mut scene = Self { server, store, steps: Vec::new() };
        scene.fill().await?;
        Ok(scene)
    }

    /// The build as it was in the beginning.
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

    async fn carry_out(&self, operation: Operation, step: usize) -> Result<()> {
        let (store, id) = (&self.store, self.steps[step]);
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

    /// All that Redis has in the two keys.
    fn kept(&self) -> TestResult<Vec<Kept>> {
        [STEPS, INDEX].into_iter().map(|key| Kept::of(&self.server, key)).collect()
    }

    /// These operations, about this step, and no others are corrupt, and what they found stays as it is.
    async fn is_corrupt_for(&self, step: usize, what: &str, corrupt: &[Operation]) -> TestResult {
        let mut met = Vec::new();
        for operation in ALL {
            // What can be done would change what the next finds.
            let before = self.kept()?;
            match self.carry_out(operation, step).await {
                Ok(()) => {}
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {operation:?}: {error}");
                    assert!(!error.is_retryable() && !error.may_have_applied(), "{what}: {error}");
                    assert!(error.to_string().contains('7'), "the build or step is named: {error}");
                    assert!(self.kept()? == before, "{what}: {operation:?} changed something");
                    met.push(operation);
                }
            }
        }
        assert_eq!(met, corrupt, "{what}");
        Ok(())
    }
}

#[derive(Debug, PartialEq)]
enum Kept {
    Nothing,
    Hash(BTreeMap<Vec<u8>, Vec<u8>>),
    Other(Vec<u8>),
}

impl Kept {
    fn of(server: &Redis, key: &str) -> TestResult<Self> {
        Ok(match server.query::<String>(&["TYPE", key])?.as_str() {
            "none" => Self::Nothing,
            "hash" => Self::Hash(server.query(&["HGETALL", key])?),
            _ => Self::Other(server.query(&["DUMP", key])?),
        })
    }
}

async fn other_types() -> TestResult {
    let mut scene = Scene::new().await?;
    let of_steps = [Add, AddKeyed, Start, Locks, State, Finish, Link, LinkAgain, GetById, GetByName, GetAll];
    let of_index = [Add, AddKeyed, Link, LinkAgain, GetByName];
    for make in [&["SET", "text"][..], &["RPUSH", "item"], &["ZADD", "1", "member"], &["XADD", "*", "field", "value"]] {
        for (key, corrupt) in [(STEPS, &of_steps[..]), (INDEX, &of_index)] {
            scene.fill().await?;
            scene.server.query::<()>(&["DEL", key])?;
            scene.server.query::<()>(&[&make[..1], &[key], &make[1..]].concat())?;
            scene.is_corrupt_for(1, &format!("{key} made by {make:?}"), corrupt).await?;
            // Others have nothing to do with it.
            scene.store.add(8, "compile", "").await?;
        }
    }
    Ok(())
}

/// The record of the step in the middle is cut, or something else.
async fn damaged_steps() -> TestResult {
    let mut scene = Scene::new().await?;
    let Kept::Hash(whole) = Kept::of(&scene.server, STEPS)? else { return Err("there is a hash".into()) };
    let record = &whole[&b"1"[..]];
    let name_ends = record.len() - "running".len();
    let mut damages: Vec<(Vec<u8>, &[Operation])> = Vec::new();
    let all_of_it = &[Start, Locks, State, Finish, Link, LinkAgain, GetById, GetByName, GetAll][..];
    let when_read = &[GetById, GetByName, GetAll][..];
    for length in 0..name_ends {
        damages.push((record[..length].to_vec(), all_of_it));
    }
    for kind in [b'u', b'x', 0] {
        damages.push(([&record[..1], &[kind], &record[2..]].concat(), all_of_it));
    }
    // A state string that is not UTF-8, or has a NUL.
    damages.push(([record, &b"\xff"[..]].concat(), when_read));
    damages.push(([record, &b"\0"[..]].concat(), when_read));
    // The number of another step, of one that is not there, and of one that cannot be.
    for number in ["0", "9", "01", "1048576", "4294967296", "", "-1", "one"] {
        damages.push(([number.as_bytes(), &record[1..]].concat(), all_of_it));
    }
    // More urls than there can be: nobody looks for them all.
    damages.push(([&record[..2], &u32::MAX.to_be_bytes(), &record[6..]].concat(), when_read));
    for (damage, corrupt) in damages {
        let what = format!("{:?}", String::from_utf8_lossy(&damage));
        // What is changed before it is read would not be the same any more, so each operation meets it afresh.
        for operation in ALL {
            scene.fill().await?;
            set(&scene.server, STEPS, b"1", &damage)?;
            let before = scene.kept()?;
            let done = scene.carry_out(operation, 1).await;
            assert_eq!(done.is_err(), corrupt.contains(&operation), "{what}: {operation:?}: {done:?}");
            if let Err(error) = done {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}");
                assert!(!error.is_retryable() && !error.may_have_applied());
                assert!(scene.kept()? == before, "{what}: {operation:?} changed something");
            }
        }
        // The others of the build are as good as before.
        for step in [0, 2] {
            for operation in [Start, Locks, State, Finish, Link, GetById, GetByName] {
                scene.carry_out(operation, step).await?;
            }
        }
        scene.store.add(7, "compile", "").await?;
    }
    Ok(())
}

/// The record of the second url is cut, another's, or another one.
async fn damaged_urls() -> TestResult {
    let mut scene = Scene::new().await?;
    let Kept::Hash(whole) = Kept::of(&scene.server, STEPS)? else { return Err("there is a hash".into()) };
    let record = &whole[&b"1:1"[..]];
    let of_step = |number: &[u8]| [number, &record[1..]].concat();
    let with = |place: usize, number: u32| [&record[..place], &number.to_be_bytes(), &record[place + 4..]].concat();
    // Its step, its place, and how long its name is.
    let numbers = [of_step(b"0"), of_step(b"9"), of_step(b""), with(2, 0), with(2, 5), with(6, 999)];
    let others = [record[..record.len() - 5].to_vec(), [record, &b"\xff"[..]].concat(), whole[&b"0"[..]].clone()];
    for damage in numbers.into_iter().chain(others) {
        scene.fill().await?;
        set(&scene.server, STEPS, b"1:1", &damage)?;
        // What is written does not look at it.
        scene.is_corrupt_for(1, &format!("{damage:?}"), &[GetById, GetByName, GetAll]).await?;
        assert!(scene.store.step(scene.steps[0]).await?.is_some());
    }
    Ok(())
}

async fn damaged_index() -> TestResult {
    let mut scene = Scene::new().await?;
    for (field, value, corrupt) in [
        ("#", "many", &[Add][..]),
        ("#", "-1", &[Add]),
        ("#", "1.5", &[Add]),
        ("#", "01", &[Add]),
        // More digits than any has, and not a build that is full.
        ("#", "10000000", &[Add]),
        // Behind what is there: the next step has a record already.
        ("#", "1", &[Add]),
        ("h1compile", "one", &[Add]),
        ("h1compile", "0", &[Add]),
        ("h1compile", "nan", &[Add]),
        ("h1compile", "1.5", &[Add]),
        ("ncompile_1", "one", &[GetByName]),
        ("kkey", "one", &[AddKeyed]),
        ("kkey", "9", &[AddKeyed]),
    ] {
        scene.fill().await?;
        scene.server.query::<()>(&["HSET", INDEX, field, value])?;
        scene.is_corrupt_for(1, &format!("{field} is {value}"), corrupt).await?;
    }
    Ok(())
}

/// Each field of the build's keys is gone, or is one of many values: each operation ends well or as corrupt, and
/// then it has changed nothing. A build beside it has nothing to do with it.
async fn any_damage() -> TestResult {
    let mut scene = Scene::new().await?;
    scene.store.add(8, "compile", "").await?;
    let values: [&[u8]; 6] = [b"", b"-1", b"1e400", b"nan", b"\xff\xff\xff\xff", &[b's'; 60]];
    for key in [STEPS, INDEX] {
        let Kept::Hash(fields) = Kept::of(&scene.server, key)? else { return Err("there is a hash".into()) };
        for field in fields.keys() {
            for value in [None].into_iter().chain(values.map(Some)) {
                scene.fill().await?;
                match value {
                    Some(value) => set(&scene.server, key, field, value)?,
                    None => remove(&scene.server, key, field)?,
                }
                let what = format!("{key} {} {value:?}", String::from_utf8_lossy(field));
                let mut before = scene.kept()?;
                for operation in ALL {
                    for step in 1..3 {
                        let done = scene.carry_out(operation, step).await;
                        let after = scene.kept()?;
                        if let Err(error) = done {
                            // Too many steps may be right.
                            let is_known = match error.kind() {
                                ErrorKind::Corrupt => true,
                                ErrorKind::NotFound => value.is_none(),
                                ErrorKind::CapacityExceeded => field == b"#",
                                _ => false,
                            };
                            assert!(is_known, "{what}: {operation:?}: {error}");
                            assert!(after == before, "{what}: {operation:?} changed something");
                        }
                        before = after;
                    }
                }
            }
        }
    }
    assert_eq!(scene.store.steps(8).await?.len(), 1);
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
