use std::{fmt, sync::Arc, time::Duration};

use percent_encoding::percent_decode_str;
use steps_batch::clamp_timeout;
use steps_core::{Clock, Result, SystemClock, UrlParameters};

use crate::{BACKEND, error, node::Address};

/// The address and settings of a [`RedisStore`](crate::RedisStore).
#[derive(Clone)]
pub struct RedisOptions {
    pub(crate) nodes: Vec<Address>,
    pub(crate) is_cluster: bool,
    pub(crate) is_encrypted: bool,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) database: i64,
    pub(crate) prefix: String,
    pub(crate) durability_check: DurabilityCheck,
    /// How many replicas a write waits for.
    pub(crate) replicas: u8,
    pub(crate) timeout: Duration,
    pub(crate) clock: Arc<dyn Clock>,
}

/// The reaction to servers whose settings may lose acknowledged writes. A client of Redis cannot choose the
/// durability of its writes, so connecting only checks the settings of the servers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum DurabilityCheck {
    /// Connecting logs a warning: `durability=server`, the default.
    Warn,
    /// Connecting fails unless acknowledged writes survive the death of the server and of its machine:
    /// `durability=required`.
    Require,
}

/// The default port of a server.
const PORT: u16 = 6379;

/// The maximum length of a prefix, in bytes.
const MAX_PREFIX_BYTES: usize = 64;

/// A scheme of a URL.
struct Scheme {
    prefix: &'static str,
    is_cluster: bool,
    is_encrypted: bool,
}

const SCHEMES: [Scheme; 4] = [
    Scheme { prefix: "redis://", is_cluster: false, is_encrypted: false },
    Scheme { prefix: "rediss://", is_cluster: false, is_encrypted: true },
    Scheme { prefix: "redis-cluster://", is_cluster: true, is_encrypted: false },
    Scheme { prefix: "rediss-cluster://", is_cluster: true, is_encrypted: true },
];

impl RedisOptions {
    /// Parses a URL: `redis://USER:PASSWORD@HOST:PORT/DATABASE` for one server, or
    /// `redis-cluster://USER:PASSWORD@HOST1:PORT1,HOST2:PORT2` for a cluster, with any of its nodes. The schemes
    /// `rediss` and `rediss-cluster` encrypt the connections, and need the feature `tls`. The parameters are:
    /// - `prefix=NAME`: see [`with_prefix`](Self::with_prefix);
    /// - `durability=server|required`: see [`DurabilityCheck`];
    /// - `replicas=COUNT`: see [`with_replicas`](Self::with_replicas).
    ///
    /// ```
    /// use steps_redis::RedisOptions;
    ///
    /// RedisOptions::from_url("redis://cache.example.org/2?prefix=staging")?;
    /// RedisOptions::from_url("redis-cluster://ci:geheim@a.example.org:7000,b.example.org:7000")?;
    /// assert!(RedisOptions::from_url("redis://cache.example.org?color=red").is_err());
    /// # Ok::<(), steps_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Config`](steps_core::ErrorKind::Config) for any other URL. The message shows no value of the URL.
    pub fn from_url(url: &str) -> Result<Self> {
        let Some(scheme) = SCHEMES.iter().find(|scheme| url.starts_with(scheme.prefix)) else {
            return Err(error::config("invalid scheme in the URL: expected \"redis://\" or \"redis-cluster://\""));
        };
        if scheme.is_encrypted && cfg!(not(feature = "tls")) {
            return Err(error::config("encrypted connections were not compiled in; enable the feature `tls`"));
        }
        if url.contains('#') {
            return Err(error::config("the URL has a \"#\"; write it as %23"));
        }
        let rest = &url[scheme.prefix.len()..];
        let (server, query) = rest.split_once('?').unwrap_or((rest, ""));
        // An "@" in the query means that the password has a "?". No part of such a query may be shown as the name of a
        // parameter.
        let options = Self::parse_server(server, scheme).filter(|_| !query.contains('@')).ok_or_else(|| {
            error::config(format!(
                "invalid URL: expected {}USER:PASSWORD@{}, with special characters written as %XX",
                scheme.prefix,
                if scheme.is_cluster { "HOST:PORT,HOST:PORT" } else { "HOST:PORT/DATABASE" }
            ))
        })?;
        options.with_query(query)
    }

    /// Parses the part of a URL between scheme and query.
    fn parse_server(server: &str, scheme: &Scheme) -> Option<Self> {
        let (authority, database) = server.split_once('/').unwrap_or((server, ""));
        let (login, hosts) = match authority.rsplit_once('@') {
            Some((login, hosts)) => (Some(login), hosts),
            None => (None, authority),
        };
        let (user, password) = match login.map(|login| login.split_once(':').unwrap_or((login, ""))) {
            Some((user, password)) => (Some(decode(user)?), Some(decode(password)?)),
            None => (None, None),
        };
        let hosts: Vec<_> = if scheme.is_cluster { hosts.split(',').collect() } else { vec![hosts] };
        Some(Self {
            nodes: hosts.into_iter().map(parse_address).collect::<Option<_>>()?,
            is_cluster: scheme.is_cluster,
            is_encrypted: scheme.is_encrypted,
            user: user.filter(|user| !user.is_empty()),
            password: password.filter(|password| !password.is_empty()),
            database: match database {
                "" => 0,
                // A cluster has only database 0.
                _ if scheme.is_cluster => return None,
                number => i64::from(number.parse::<u16>().ok()?),
            },
            prefix: "steps".to_owned(),
            durability_check: DurabilityCheck::Warn,
            replicas: 0,
            timeout: Duration::from_secs(10),
            clock: Arc::new(SystemClock),
        })
    }

    fn with_query(mut self, query: &str) -> Result<Self> {
        let mut parameters = UrlParameters::parse(BACKEND, query)?;
        if let Some(prefix) = parameters.take("prefix", &expected_prefix(), valid_prefix)? {
            self.prefix = prefix;
        }
        let check = parameters.take("durability", "server or required", |value| match value {
            "server" => Some(DurabilityCheck::Warn),
            "required" => Some(DurabilityCheck::Require),
            _ => None,
        })?;
        if let Some(check) = check {
            self.durability_check = check;
        }
        if let Some(replicas) = parameters.take("replicas", "a number from 0 to 255", |value| value.parse().ok())? {
            self.replicas = replicas;
        }
        parameters.finish()?;
        Ok(self)
    }

    /// Sets the prefix of all keys: `{steps:7}` is a key of build 7 with the default prefix `steps`.
    ///
    /// # Errors
    /// [`Config`](steps_core::ErrorKind::Config) if it is empty, is longer than 64 bytes, or has a brace or a NUL.
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Result<Self> {
        self.prefix = valid_prefix(&prefix.into())
            .ok_or_else(|| error::config(format!("invalid prefix: expected {}", expected_prefix())))?;
        Ok(self)
    }

    /// Sets the reaction to servers whose settings may lose acknowledged writes (D1).
    #[must_use]
    pub fn with_durability_check(mut self, check: DurabilityCheck) -> Self {
        self.durability_check = check;
        self
    }

    /// Sets how many replicas must have a write before it is acknowledged (D1); 0 by default. A write that is on too
    /// few replicas when its deadline passes is [`Unavailable`](steps_core::ErrorKind::Unavailable) and may have been
    /// applied.
    ///
    /// A failover to a replica that has the write keeps it. A failover to another replica may lose it, so the count
    /// should be the number of replicas of each server.
    #[must_use]
    pub fn with_replicas(mut self, count: u8) -> Self {
        self.replicas = count;
        self
    }

    /// Sets the time-out of a call, including its time in queues (D4); 10 s by default.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = clamp_timeout(timeout);
        self
    }

    /// Sets the clock (L4).
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The servers and the prefix, without user and password.
    pub(crate) fn location(&self) -> String {
        let nodes: Vec<_> = self.nodes.iter().map(Address::to_string).collect();
        let nodes = nodes.join(",");
        let prefix = &self.prefix;
        if self.is_cluster {
            format!("cluster of {nodes}, prefix {prefix}")
        } else {
            format!("{nodes}/{}, prefix {prefix}", self.database)
        }
    }
}

/// Omits user and password.
impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisOptions")
            .field("location", &self.location())
            .field("is_encrypted", &self.is_encrypted)
            .field("durability_check", &self.durability_check)
            .field("replicas", &self.replicas)
            .field("timeout", &self.timeout)
            .field("clock", &self.clock)
            .finish_non_exhaustive()
    }
}

fn valid_prefix(prefix: &str) -> Option<String> {
    let is_valid = (1..=MAX_PREFIX_BYTES).contains(&prefix.len()) && !prefix.contains(['{', '}', '\0']);
    is_valid.then(|| prefix.to_owned())
}

fn expected_prefix() -> String {
    format!("1 to {MAX_PREFIX_BYTES} bytes, without brace and NUL")
}

/// Parses `HOST`, `HOST:PORT`, or `[HOST]:PORT` for an IPv6 address.
fn parse_address(text: &str) -> Option<Address> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Some(PORT), |port| port.parse().ok())?;
    (!host.is_empty()).then(|| Address { host: host.to_owned(), port })
}

fn decode(text: &str) -> Option<String> {
    Some(percent_decode_str(text).decode_utf8().ok()?.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(url: &str) -> RedisOptions {
        RedisOptions::from_url(url).unwrap()
    }

    #[test]
    fn a_url_has_a_server_and_our_parameters() {
        let read = options("redis://ci:s%40cret@cache:6380/3?prefix=a%20b&durability=required&replicas=2");
        assert_eq!(read.location(), "cache:6380/3, prefix a b");
        assert_eq!((read.user.as_deref(), read.password.as_deref()), (Some("ci"), Some("s@cret")));
        assert_eq!((read.durability_check, read.replicas), (DurabilityCheck::Require, 2));
        assert!(!read.is_cluster && !read.is_encrypted);
        assert!(!format!("{read:?}").contains("cret"));

        let read = options("redis://:secret@[::1]");
        assert_eq!((read.user, read.password.as_deref()), (None, Some("secret")));
        assert_eq!((read.nodes[0].host.as_str(), read.nodes[0].port), ("::1", 6379));
    }

    #[test]
    fn a_cluster_has_one_login_and_many_nodes() {
        let read = options("redis-cluster://ci:secret@a:7000,b,[::1]:7002");
        assert_eq!(read.location(), "cluster of a:7000,b:6379,[::1]:7002, prefix steps");
        assert_eq!(read.password.as_deref(), Some("secret"));
        assert!(read.is_cluster);
    }

    #[test]
    fn an_invalid_url_is_refused_and_no_value_is_shown() {
        for (url, expected) in [
            (
                "redis://cache?pasword=secret",
                "unknown parameter \"pasword\" in the URL: expected prefix, durability or replicas",
            ),
            ("redis://cache?durability=secret", "invalid `durability` in the URL: expected server or required"),
            ("redis://cache?replicas=secret", "invalid `replicas` in the URL: expected a number from 0 to 255"),
            ("redis://cache?replicas=256", "from 0 to 255"),
            ("redis://cache?replicas=-1", "from 0 to 255"),
            ("redis://cache?replicas=", "from 0 to 255"),
            ("redis://cache?prefix=", "invalid `prefix` in the URL: expected 1 to 64 bytes"),
            ("redis://cache?prefix={secret}", "without brace"),
            ("redis://cache?prefix=%ff", "expected UTF-8"),
            ("redis://ci:secret@cache:port", "invalid URL"),
            ("redis://ci:12?secret=34@cache", "invalid URL"),
            ("redis://ci:12/3?secret@cache", "invalid URL"),
            ("redis://ci:12/secret@cache", "invalid URL"),
            ("redis-cluster://ci:12?secret=34@a,b", "invalid URL"),
            ("redis://ci:secret@/1", "invalid URL"),
            ("redis://cache/secret", "invalid URL"),
            ("redis-cluster://ci:secret@a,", "invalid URL"),
            ("redis-cluster://a,b/1", "invalid URL"),
            ("redis://ci:sec#ret@cache", "%23"),
            ("redis:cache", "invalid scheme"),
        ] {
            let error = RedisOptions::from_url(url).unwrap_err();
            assert_eq!(error.kind(), steps_core::ErrorKind::Config, "{url}");
            let shown = format!("{error} {error:?}");
            assert!(shown.contains(expected) && !shown.contains("secret"), "{url}: {shown}");
        }
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn encryption_that_was_not_compiled_in_names_its_feature() {
        for url in ["rediss://cache", "rediss-cluster://a,b"] {
            assert!(RedisOptions::from_url(url).unwrap_err().to_string().contains("feature `tls`"));
        }
    }
}
