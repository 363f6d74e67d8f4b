//! Reports of the servers about themselves: settings, version and role.

use std::collections::BTreeSet;

use redis::Value;
use steps_batch::BatchError;
use tokio::time::Instant;

use crate::{
    connection::{Channel, SendError},
    error,
    node::Node,
};

/// The settings of one server that decide about durability. `None` if the user may not see them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Settings {
    append_only: Option<bool>,
    fsync: Option<String>,
    eviction: Option<String>,
}

/// The durability of a store: that of its weakest server.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct DurabilityReport {
    /// The possible losses, each as a sentence.
    pub(crate) shortcomings: BTreeSet<String>,
    /// Whether an acknowledged write survives the death of the server.
    pub(crate) survives_server: bool,
}

impl Settings {
    /// # Errors
    /// When the server does not reply. A user without permission to see the settings is no error.
    pub(crate) async fn of(node: &Node, deadline: Instant) -> Result<Self, BatchError> {
        let mut cmd = redis::cmd("CONFIG");
        cmd.arg("GET").arg(&["appendonly", "appendfsync", "maxmemory-policy"]);
        match node.send(Channel::Default, &cmd, deadline).await {
            Ok(reply) => Ok(Self::parse(&reply)),
            Err(SendError::Refused(refusal)) if error::server_error(&refusal).is_transient() => {
                Err(error::server_error(&refusal))
            }
            // Hosted servers may forbid, rename or lack the command.
            Err(SendError::Refused(_)) => Ok(Self::default()),
            Err(error) => Err(error.into_batch_error()),
        }
    }

    fn parse(reply: &Value) -> Self {
        let setting = |name: &str| field(reply, name);
        Self {
            append_only: setting("appendonly").map(|value| value == "yes"),
            fsync: setting("appendfsync"),
            eviction: setting("maxmemory-policy"),
        }
    }
}

impl DurabilityReport {
    /// The report on the settings of all servers that take writes.
    pub(crate) fn of(settings: &[Settings]) -> Self {
        let mut report = Self { shortcomings: BTreeSet::new(), survives_server: true };
        for settings in settings {
            let loss = match (settings.append_only, settings.fsync.as_deref()) {
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
                    "The effect of the server's death is unknown: the user may not see appendonly and appendfsync.",
                ),
            };
            report.survives_server &= loss.is_none();
            report.shortcomings.extend(loss.map(String::from));
            let eviction = match settings.eviction.as_deref() {
                // Other policies evict only keys with a time to live, and no key of a store has one.
                Some(policy) if policy.starts_with("allkeys-") => {
                    Some(format!("The server evicts builds when memory is short: maxmemory-policy is {policy}."))
                }
                Some(_) => None,
                None => Some(
                    "Whether the server evicts builds when memory is short is unknown: the user may not see \
                     maxmemory-policy."
                        .to_owned(),
                ),
            };
            report.shortcomings.extend(eviction);
        }
        report
    }
}

/// Ensures that the server is not part of a cluster. On a node of a cluster the first key of a store may happen to be
/// in a slot of that node, but builds in other slots would be refused later.
///
/// # Errors
/// `Config` if the server is part of a cluster, or the error of a server that does not reply.
pub(crate) async fn ensure_standalone(node: &Node, deadline: Instant) -> Result<(), BatchError> {
    // HELLO needs no permission.
    match node.send(Channel::Default, &redis::cmd("HELLO"), deadline).await {
        Ok(reply) if field(&reply, "mode").as_deref() == Some("cluster") => Err(error::server_is_in_a_cluster()),
        Ok(_) | Err(SendError::Refused(_)) => Ok(()),
        Err(error) => Err(error.into_batch_error()),
    }
}

/// Ensures that the user may run `WAIT`.
///
/// # Errors
/// `ReadOnly` without that permission, or the error of a server that does not reply.
pub(crate) async fn ensure_wait_allowed(node: &Node, deadline: Instant) -> Result<(), BatchError> {
    let mut cmd = redis::cmd("WAIT");
    // With 0 replicas the command returns at once.
    cmd.arg(0).arg(0);
    match node.send(Channel::Default, &cmd, deadline).await {
        Err(SendError::Refused(error)) if error.code() == "NOPERM" => Err(error::server_error(&error)),
        // A replica refuses WAIT.
        Ok(_) | Err(SendError::Refused(_)) => Ok(()),
        Err(error) => Err(error.into_batch_error()),
    }
}

/// The value of a field in a reply of names and values.
fn field(reply: &Value, name: &str) -> Option<String> {
    let mut pairs = reply.as_map_iter()?;
    pairs.find(|(key, _)| text(key).as_deref() == Some(name)).and_then(|(_, value)| text(value))
}

/// The version and role of one server.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct ServerInfo {
    /// Name and version, such as `Redis 7.0.15`.
    pub(crate) name: String,
    pub(crate) is_replica: bool,
    /// How many replicas are connected. `None` if the user may not see it.
    replicas: Option<u64>,
}

impl ServerInfo {
    pub(crate) async fn of(node: &Node, deadline: Instant) -> Result<Self, BatchError> {
        match node.send(Channel::Default, &redis::cmd("INFO"), deadline).await {
            Ok(reply) => Ok(Self::parse(&text(&reply).unwrap_or_default())),
            Err(SendError::Refused(_)) => {
                Ok(Self { name: "a server of unknown version".into(), is_replica: false, replicas: None })
            }
            Err(error) => Err(error.into_batch_error()),
        }
    }

    fn parse(info: &str) -> Self {
        let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let name = match (field("valkey_version"), field("redis_version")) {
            (Some(version), _) => format!("Valkey {version}"),
            (None, version) => format!("Redis {}", version.unwrap_or("of an unknown version")),
        };
        let replicas = field("connected_slaves").and_then(|count| count.parse().ok());
        Self { name, is_replica: field("role") == Some("slave"), replicas }
    }

    /// A warning if one of the servers has fewer replicas than writes wait for.
    pub(crate) fn too_few_replicas(servers: &[Self], required: u8) -> Option<String> {
        let fewest = servers.iter().filter_map(|server| server.replicas).min()?;
        let warning = || {
            format!(
                "Writes wait for {required} replicas, and a server has {fewest}: writes to it will fail until it has \
                 more."
            )
        };
        (fewest < u64::from(required)).then(warning)
    }
}

/// The text of a value, which each version of the protocol encodes in another way.
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
        Settings::parse(&Value::Map(pairs.map(|(name, value)| (bulk(name), bulk(value))).into()))
    }

    #[test]
    fn each_possible_loss_is_reported() {
        let report = |settings: Settings| DurabilityReport::of(&[settings]);
        let durable = report(settings("yes", "always", "noeviction"));
        assert!(durable.survives_server && durable.shortcomings.is_empty());
        assert!(report(settings("yes", "always", "volatile-lru")).shortcomings.is_empty());
        for (settings, expected) in [
            (settings("yes", "everysec", "noeviction"), "everysec"),
            (settings("yes", "no", "noeviction"), "not always"),
            (settings("no", "always", "noeviction"), "appendonly is no"),
            (Settings::default(), "may not see appendonly"),
        ] {
            let report = report(settings);
            assert!(!report.survives_server);
            assert!(report.shortcomings.iter().any(|it| it.contains(expected)), "{report:?}");
        }
        let evicting = report(settings("yes", "always", "allkeys-lru"));
        assert!(evicting.shortcomings.iter().any(|it| it.contains("allkeys-lru")), "{evicting:?}");
    }

    #[test]
    fn a_store_is_as_durable_as_its_weakest_server() {
        let servers = [settings("yes", "always", "noeviction"), settings("yes", "no", "noeviction")];
        assert!(!DurabilityReport::of(&servers).survives_server);
    }

    #[test]
    fn a_server_is_named_with_its_version() {
        let name = |info: &str| ServerInfo::parse(info).name;
        assert_eq!(name("# Server\r\nredis_version:7.0.15\r\nrole:master\r\n"), "Redis 7.0.15");
        assert_eq!(name("redis_version:7.2.4\r\nvalkey_version:8.0.1\r\n"), "Valkey 8.0.1");
        assert!(ServerInfo::parse("role:slave\r\n").is_replica);
    }

    #[test]
    fn a_server_with_too_few_replicas_is_reported() {
        let servers = ["connected_slaves:2\r\n", "connected_slaves:1\r\n", ""].map(ServerInfo::parse);
        assert_eq!(ServerInfo::too_few_replicas(&servers, 1), None);
        let warning = ServerInfo::too_few_replicas(&servers, 2).unwrap();
        assert!(warning.contains("wait for 2 replicas, and a server has 1"), "{warning}");
        assert_eq!(ServerInfo::too_few_replicas(&servers[2..], 2), None);
    }
}
