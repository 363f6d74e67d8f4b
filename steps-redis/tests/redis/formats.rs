//! The storage format, prefixes, limits, and the check of durability.

use std::sync::{Arc, Mutex};

use libtest_mimic::Trial;
use steps_core::{Error, ErrorKind, StepsStore, StepsStoreExt};
use steps_redis::{GREATEST_BUILD_ID, GREATEST_STEPS_A_BUILD};
use test_servers::{RedisOptions, TestResult, children::keyed, trial};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

use crate::connect;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("formats::a_newer_format_is_left_as_it_is", newer_format),
        trial("formats::keys_of_another_program_are_left_as_they_are", foreign_keys),
        trial("formats::prefixes_and_databases_keep_stores_apart", prefixes),
        trial("formats::a_build_that_is_full_refuses_a_step", full_build),
        trial("formats::no_suffix_is_skipped_where_the_digits_increase", more_digits),
        trial("formats::weak_settings_are_reported_once_or_refused", durability),
    ]
}

async fn refused(url: &str) -> TestResult<Error> {
    let error = connect(url).await.err().ok_or("the store was opened")?;
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(!error.is_retryable() && !error.may_have_applied());
    Ok(error)
}

async fn newer_format() -> TestResult {
    let server = RedisOptions::default().start()?;
    let store = connect(&server.url()).await?;
    store.add(7, "compile", "").await?;
    assert_eq!(server.query::<String>(&["GET", "{steps:format}"])?, "1");
    server.query::<()>(&["SET", "{steps:format}", "2"])?;
    assert!(refused(&server.url()).await?.to_string().contains("newer program"));
    assert_eq!(server.query::<String>(&["GET", "{steps:format}"])?, "2");
    server.query::<()>(&["SET", "{steps:format}", "1"])?;
    assert_eq!(connect(&server.url()).await?.steps(7).await?.len(), 1);
    Ok(())
}

async fn foreign_keys() -> TestResult {
    let server = RedisOptions::default().start()?;
    for (foreign, get) in [
        (&["SET", "{steps:format}", "GIF89a"][..], "GET"),
        (&["SET", "{steps:format}", "0"], "GET"),
        (&["SET", "{steps:format}", ""], "GET"),
        (&["HSET", "{steps:format}", "version", "1"], "HGETALL"),
    ] {
        server.query::<()>(&["FLUSHALL"])?;
        server.query::<()>(foreign)?;
        let before: redis::Value = server.query(&[get, "{steps:format}"])?;
        let shown = refused(&server.url()).await?.to_string();
        assert!(shown.contains("another prefix"), "{shown}");
        assert_eq!(server.query::<redis::Value>(&[get, "{steps:format}"])?, before);
        assert_eq!(server.query::<u32>(&["DBSIZE"])?, 1);
        connect(&format!("{}?prefix=other", server.url())).await?;
    }
    Ok(())
}

async fn prefixes() -> TestResult {
    let server = RedisOptions::default().start()?;
    let mut stores = Vec::new();
    for suffix in ["", "?prefix=a", "?prefix=a:7", "?prefix=%C3%A4", "/1", "/1?prefix=a"] {
        stores.push(connect(&format!("{}{suffix}", server.url())).await?);
    }
    for (index, store) in stores.iter().enumerate() {
        let added = store.add(7, "compile", index.to_string()).await?;
        assert_eq!((added.number.get(), added.name.as_str()), (0, "compile"));
    }
    for (index, store) in stores.iter().enumerate() {
        let steps = store.steps(7).await?;
        assert_eq!(steps.iter().map(|step| step.state_string.to_string()).collect::<Vec<_>>(), [index.to_string()]);
    }
    Ok(())
}

/// Sets the step count in the index of a build, instead of adding a million steps.
async fn full_build() -> TestResult {
    let server = RedisOptions::default().start()?;
    let store = connect(&server.url()).await?;
    let keyed = keyed("keyed", "key")?;
    let first = store.add_step(keyed.clone()).await?;
    server.query::<()>(&["HSET", "{steps:7}:index", "#", &(GREATEST_STEPS_A_BUILD - 1).to_string()])?;
    let last = store.add(7, "compile", "").await?;
    assert_eq!(u64::from(last.number.get()), GREATEST_STEPS_A_BUILD - 1);
    assert_eq!(last.id.get(), (8 << 20) - 1);

    let before: u32 = server.query(&["HLEN", "{steps:7}:index"])?;
    for name in ["compile", "test"] {
        let error = store.add(7, name, "").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CapacityExceeded, "{error}");
        assert!(!error.is_retryable() && !error.may_have_applied());
    }
    assert_eq!(server.query::<u32>(&["HLEN", "{steps:7}:index"])?, before);
    assert_eq!(store.add_step(keyed).await?, first, "I5: nothing is added");
    assert_eq!(store.step(last.id).await?.ok_or("the last step exists")?.name, "compile");
    store.add_named_url(last.id, "log", "").await?;
    // The ids of the next build begin where those of this build end.
    let next = store.add(8, "compile", "").await?;
    assert_eq!((next.id.get(), next.number.get()), (8 << 20, 0));

    let largest = store.add(GREATEST_BUILD_ID, "compile", "").await?;
    assert_eq!(store.step(largest.id).await?.ok_or("the step exists")?.build_id.get(), GREATEST_BUILD_ID);
    let error = store.add(GREATEST_BUILD_ID + 1, "compile", "").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CapacityExceeded);
    assert!(store.steps(GREATEST_BUILD_ID + 1).await?.is_empty());
    Ok(())
}

/// N3, N5: the last suffix of each number of digits, then the first with one digit more. The name is as long as
/// allowed and not ASCII, so each digit replaces a letter, which may have several bytes.
async fn more_digits() -> TestResult {
    let server = RedisOptions::default().start()?;
    let store = connect(&server.url()).await?;
    for (build, letter) in (1..).zip(['x', 'ß', '→', '𝄞']) {
        let name: String = std::iter::repeat_n(letter, 50).collect();
        let index = format!("{{steps:{build}}}:index");
        store.add(build, name.as_str(), "").await?;
        for digits in 1..=6 {
            let past = 10_u32.pow(digits);
            let prefix: String = name.chars().take(49 - digits as usize).collect();
            // The hint says that all suffixes with this number of digits are taken except the last.
            let hint = format!("h{digits}{prefix}");
            server.query::<()>(&["HSET", &index, &hint, &(past - 1).to_string()])?;
            let added = store.add(build, name.as_str(), "").await?;
            assert_eq!(added.name.as_str(), format!("{prefix}_{}", past - 1));
            let shorter: String = prefix.chars().take(48 - digits as usize).collect();
            let added = store.add(build, name.as_str(), "").await?;
            assert_eq!(added.name.as_str(), format!("{shorter}_{past}"));
        }
    }
    Ok(())
}

async fn durability() -> TestResult {
    let server = RedisOptions::default().start()?;
    let warnings = Warnings::default();
    let _guard = tracing::subscriber::set_default(warnings.clone());
    let store = connect(&server.url()).await?;
    store.add(7, "compile", "").await?;
    store.steps(7).await?;
    {
        let logged = warnings.0.lock().expect("no test panicked");
        assert_eq!(logged.iter().filter(|it| it.contains("appendonly is no")).count(), 1, "{logged:?}");
    }
    let required = format!("{}?durability=required", server.url());
    assert!(refused(&required).await?.to_string().contains("appendonly is no"));
    server.query::<()>(&["CONFIG", "SET", "appendonly", "yes", "appendfsync", "everysec"])?;
    assert!(refused(&required).await?.to_string().contains("everysec"));
    server.query::<()>(&["CONFIG", "SET", "appendfsync", "always", "maxmemory-policy", "allkeys-lru"])?;
    assert!(refused(&required).await?.to_string().contains("maxmemory-policy"));
    server.query::<()>(&["CONFIG", "SET", "maxmemory-policy", "noeviction"])?;
    warnings.0.lock().expect("no test panicked").clear();
    let description = connect(&required).await?.describe().await?;
    assert!(description.promises.iter().any(|it| it.contains("machine")), "{description:?}");
    let logged = warnings.0.lock().expect("no test panicked");
    assert!(logged.is_empty(), "{logged:?}");
    Ok(())
}

/// Collects the messages that are logged on this thread.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("steps_redis")
    }

    fn event(&self, event: &Event<'_>) {
        struct Message<'a>(&'a Warnings);
        impl Visit for Message<'_> {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" {
                    self.0.0.lock().expect("no test panicked").push(format!("{value:?}"));
                }
            }
        }
        event.record(&mut Message(self));
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}
