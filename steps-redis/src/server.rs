//! What the servers say about themselves: which program they are, and what they keep.

use std::collections::BTreeSet;

use redis::Value;
use steps_batch::BatchError;
use tokio::time::Instant;

use crate::{
    error,
    node::{Lane, NoAnswer, Node},
};

/// The settings of one server that decide what it keeps. `None` where the user may not see them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Settings {
    append_only: Option<bool>,
    fsync: Option<String>,
    eviction: Option<String>,
}

/// What the servers of a store keep, all together.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Keeping {
    /// What may be lost, a sentence each.
    pub(crate) shortcomings: BTreeSet<String>,
    /// Whether an answered write survives the death of the server.
    pub(crate) survives_server: bool,
}

impl Settings {
    /// # Errors
    /// When the server does not answer; a user that may not see the settings is no error.
    pub(crate) async fn of(node: &Node, deadline: Instant) -> Result<Self, BatchError> {
        let mut cmd = redis::cmd("CONFIG");
        cmd.arg("GET").arg(&["appendonly", "appendfsync", "maxmemory-policy"]);
        match node.send(Lane::Calls, &cmd, deadline).await {
            Ok(answer) => Ok(Self::read(&answer)),
            Err(NoAnswer::Refused(refusal)) if error::from_server(&refusal).is_transient() => {
                Err(error::from_server(&refusal))
            }
            // The command is forbidden, renamed or unknown to a server that is hosted elsewhere.
            Err(NoAnswer::Refused(_)) => Ok(Self::default()),
            Err(no_answer) => Err(no_answer.into_failure()),
        }
    }

    fn read(answer: &Value) -> Self {
        let setting = |name: &str| field(answer, name);
        Self {
            append_only: setting("appendonly").map(|value| value == "yes"),
            fsync: setting("appendfsync"),
            eviction: setting("maxmemory-policy"),
        }
    }
}

impl Keeping {
    /// By the settings of all servers that take writes: a store keeps what the least of them keeps.
    pub(crate) fn of(settings: &[Settings]) -> Self {
        let mut keeping = Self { shortcomings: BTreeSet::new(), survives_server: true };
        for settings in settings {
            let lost = match (settings.append_only, settings.fsync.as_deref()) {
                (Some(true), Some("always")) => None,
                (Some(true), Some("everysec")) => Some(
                    "The death of the server may take the writes of the last second or two: appendfsync is everysec.",
                ),
                (Some(true), Some(_)) => {
                    Some("The death of the server's machine may take the last writes: appendfsync is not always.")
                }
                (Some(false), _) => {
                    Some("The death of the server may take all writes since its last snapshot: appendonly is no.")
                }
                _ => Some(
                    "What the death of the server takes is unknown: the user may not see appendonly and appendfsync.",
                ),
            };
            keeping.survives_server &= lost.is_none();
            keeping.shortcomings.extend(lost.map(String::from));
            let evicted = match settings.eviction.as_deref() {
                // The others evict only what has a time to live, and nothing of a store has one.
                Some(policy) if policy.starts_with("allkeys-") => {
                    Some(format!("A server short of memory throws builds away: maxmemory-policy is {policy}."))
                }
                Some(_) => None,
                None => Some("Whether a server short of memory throws builds away is unknown.".to_owned()),
            };
            keeping.shortcomings.extend(evicted);
        }
        keeping
    }
}

/// Whether the server is no node of a cluster. One that is would take a store whose first key happens to be its own, and
/// then send its builds elsewhere.
///
/// # Errors
/// `Config` when it is one; when it does not answer.
pub(crate) async fn is_alone(node: &Node, deadline: Instant) -> Result<(), BatchError> {
    // Whoever is connected may ask this.
    match node.send(Lane::Calls, &redis::cmd("HELLO"), deadline).await {
        Ok(answer) if field(&answer, "mode").as_deref() == Some("cluster") => Err(error::in_a_cluster()),
        Ok(_) | Err(NoAnswer::Refused(_)) => Ok(()),
        Err(no_answer) => Err(no_answer.into_failure()),
    }
}

/// Whether the user may wait for replicas.
///
/// # Errors
/// `ReadOnly` when not; when the server does not answer.
pub(crate) async fn may_wait(node: &Node, deadline: Instant) -> Result<(), BatchError> {
    let mut cmd = redis::cmd("WAIT");
    // For none, which has no need of time.
    cmd.arg(0).arg(0);
    match node.send(Lane::Calls, &cmd, deadline).await {
        Err(NoAnswer::Refused(error)) if error.code() == "NOPERM" => Err(error::from_server(&error)),
        // A replica has none to wait for.
        Ok(_) | Err(NoAnswer::Refused(_)) => Ok(()),
        Err(no_answer) => Err(no_answer.into_failure()),
    }
}

/// A field of an answer that has names and values.
fn field(answer: &Value, name: &str) -> Option<String> {
    let mut pairs = answer.as_map_iter()?;
    pairs.find(|(key, _)| text(key).as_deref() == Some(name)).and_then(|(_, value)| text(value))
}

/// What one server is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Program {
    /// Its name and version, such as `Redis 7.0.15`.
    pub(crate) name: String,
    pub(crate) is_replica: bool,
    /// How many replicas it has just now. `None` where the user may not see it.
    replicas: Option<u64>,
}

impl Program {
    pub(crate) async fn of(node: &Node, deadline: Instant) -> Result<Self, BatchError> {
        let answer = node.send(Lane::Calls, &redis::cmd("INFO"), deadline).await;
        match answer {
            Ok(answer) => Ok(Self::read(&text(&answer).unwrap_or_default())),
            Err(NoAnswer::Refused(_)) => {
                Ok(Self { name: "a server that tells no version".into(), is_replica: false, replicas: None })
            }
            Err(no_answer) => Err(no_answer.into_failure()),
        }
    }

    fn read(info: &str) -> Self {
        let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let name = match (field("valkey_version"), field("redis_version")) {
            (Some(version), _) => format!("Valkey {version}"),
            (None, version) => format!("Redis {}", version.unwrap_or("of an unknown version")),
        };
        let replicas = field("connected_slaves").and_then(|count| count.parse().ok());
        Self { name, is_replica: field("role") == Some("slave"), replicas }
    }

    /// What to say where one has fewer replicas just now than writes wait for.
    pub(crate) fn too_few_replicas(programs: &[Self], wanted: u8) -> Option<String> {
        let fewest = programs.iter().filter_map(|program| program.replicas).min()?;
        let warning = || {
            format!(
                "Writes wait for {wanted} replicas, and a server has {fewest}: they fail there while it has not more."
            )
        };
        (fewest < u64::from(wanted)).then(warning)
    }
}

/// The text of a value, whatever the protocol makes of it.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(append_only: &str, fsync: &str, eviction: &str) -> Settings {
        let pairs = [("appendonly", append_only), ("appendfsync", fsync), ("maxmemory-policy", eviction)];
        let bulk = |text: &str| Value::BulkString(text.into());
        Settings::read(&Value::Map(pairs.map(|(name, value)| (bulk(name), bulk(value))).into()))
    }

    #[test]
    fn what_is_not_kept_is_told() {
        let keeping = |settings: Settings| Keeping::of(&[settings]);
        let whole = keeping(settings("yes", "always", "noeviction"));
        assert!(whole.survives_server && whole.shortcomings.is_empty());
        assert!(keeping(settings("yes", "always", "volatile-lru")).shortcomings.is_empty());
        for (settings, said) in [
            (settings("yes", "everysec", "noeviction"), "everysec"),
            (settings("yes", "no", "noeviction"), "not always"),
            (settings("no", "always", "noeviction"), "appendonly is no"),
            (Settings::default(), "may not see"),
        ] {
            let kept = keeping(settings);
            assert!(!kept.survives_server);
            assert!(kept.shortcomings.iter().any(|it| it.contains(said)), "{kept:?}");
        }
        let evicting = keeping(settings("yes", "always", "allkeys-lru"));
        assert!(evicting.shortcomings.iter().any(|it| it.contains("allkeys-lru")), "{evicting:?}");
    }

    #[test]
    fn a_store_keeps_what_the_least_of_its_servers_keeps() {
        let servers = [settings("yes", "always", "noeviction"), settings("yes", "no", "noeviction")];
        assert!(!Keeping::of(&servers).survives_server);
    }

    #[test]
    fn a_server_is_named_with_its_version() {
        let of = |info: &str| Program::read(info).name;
        assert_eq!(of("# Server\r\nredis_version:7.0.15\r\nrole:master\r\n"), "Redis 7.0.15");
        assert_eq!(of("redis_version:7.2.4\r\nvalkey_version:8.0.1\r\n"), "Valkey 8.0.1");
        assert!(Program::read("role:slave\r\n").is_replica);
    }

    #[test]
    fn a_server_with_too_few_replicas_is_told_of() {
        let programs = ["connected_slaves:2\r\n", "connected_slaves:1\r\n", ""].map(Program::read);
        assert_eq!(Program::too_few_replicas(&programs, 1), None);
        let warning = Program::too_few_replicas(&programs, 2).unwrap();
        assert!(warning.contains("wait for 2 replicas, and a server has 1"), "{warning}");
        assert_eq!(Program::too_few_replicas(&programs[2..], 2), None);
    }
}
