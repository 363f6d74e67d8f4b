use std::{fmt, sync::Arc, time::Duration};

use percent_encoding::percent_decode_str;
use steps_batch::clamp_timeout;
use steps_core::{Clock, Result, SystemClock};

use crate::{error, node::Address};

/// Where a [`RedisStore`](crate::RedisStore) keeps its data, and how.
#[derive(Clone)]
pub struct RedisOptions {
    pub(crate) nodes: Vec<Address>,
    pub(crate) is_cluster: bool,
    pub(crate) is_encrypted: bool,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) database: i64,
    pub(crate) prefix: String,
    pub(crate) durability: Durability,
    /// How many replicas a write waits for.
    pub(crate) replicas: u8,
    pub(crate) timeout: Duration,
    pub(crate) clock: Arc<dyn Clock>,
}

/// What an answered write has to survive. Redis has no setting for it that a client could choose: a store can only look
/// at those of its servers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Durability {
    /// What the servers' settings keep; connecting warns of what they do not: `durability=server`, the default.
    Server,
    /// The death of the server and of its machine; connecting to a server whose settings do not keep that is an error:
    /// `durability=required`.
    Required,
}

/// The port of a server unless the URL has one.
const PORT: u16 = 6379;

/// The greatest length of a prefix, in bytes.
const PREFIX_BYTES: usize = 64;

/// What a URL may begin with, and whether that means a cluster, and encryption.
const SCHEMES: [(&str, bool, bool); 4] = [
    ("redis://", false, false),
    ("rediss://", false, true),
    ("redis-cluster://", true, false),
    ("rediss-cluster://", true, true),
];

impl RedisOptions {
    /// The options that a URL names: `redis://USER:PASSWORD@HOST:PORT/DATABASE` for one server, or
    /// `redis-cluster://USER:PASSWORD@HOST1:PORT1,HOST2:PORT2` for a cluster, of which any nodes may be named. With
    /// `rediss` in place of `redis`, which takes the feature `tls`, connections are encrypted. The parameters are:
    /// - `prefix=NAME`: see [`with_prefix`](Self::with_prefix);
    /// - `durability=server|required`: see [`Durability`];
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
    /// [`Config`](steps_core::ErrorKind::Config) for any other URL. No value of it is shown.
    pub fn from_url(url: &str) -> Result<Self> {
        let scheme = SCHEMES.into_iter().find(|(scheme, ..)| url.starts_with(scheme));
        let Some((scheme, is_cluster, is_encrypted)) = scheme else {
            return Err(error::config("a URL of Redis begins with \"redis://\" or \"redis-cluster://\""));
        };
        if is_encrypted && cfg!(not(feature = "tls")) {
            return Err(error::config("encrypted connections were not compiled in; enable the feature `tls`"));
        }
        if url.contains('#') {
            return Err(error::config("the URL has a \"#\"; write it as %23"));
        }
        let (server, parameters) = url[scheme.len()..].split_once('?').unwrap_or((&url[scheme.len()..], ""));
        // Before a name of a parameter is shown: behind a "?" in a password stands the rest of it, and an "@".
        let options = Self::of_server(server, is_cluster, is_encrypted)
            .filter(|_| !parameters.contains('@'))
            .ok_or_else(|| {
                error::config(format!(
                    "the URL cannot be read; write {scheme}USER:PASSWORD@{}, with %XX for what is special in them",
                    if is_cluster { "HOST:PORT,HOST:PORT" } else { "HOST:PORT/DATABASE" }
                ))
            })?;
        parameters.split('&').filter(|parameter| !parameter.is_empty()).try_fold(options, |options, parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            match (decode(name), decode(value)) {
                (Some(name), Some(value)) => options.with_parameter(&name, &value),
                _ => Err(error::config("a parameter of the URL is not UTF-8")),
            }
        })
    }

    fn of_server(server: &str, is_cluster: bool, is_encrypted: bool) -> Option<Self> {
        let (server, database) = server.split_once('/').unwrap_or((server, ""));
        let (login, hosts) = match server.rsplit_once('@') {
            Some((login, hosts)) => (Some(login), hosts),
            None => (None, server),
        };
        let (user, password) = match login.map(|login| login.split_once(':').unwrap_or((login, ""))) {
            Some((user, password)) => (Some(decode(user)?), Some(decode(password)?)),
            None => (None, None),
        };
        let nodes: Vec<_> = if is_cluster { hosts.split(',').collect() } else { vec![hosts] };
        Some(Self {
            nodes: nodes.into_iter().map(address).collect::<Option<_>>()?,
            is_cluster,
            is_encrypted,
            user: user.filter(|user| !user.is_empty()),
            password: password.filter(|password| !password.is_empty()),
            // A cluster has but one.
            database: match database {
                "" => 0,
                _ if is_cluster => return None,
                number => i64::from(number.parse::<u16>().ok()?),
            },
            prefix: "steps".to_owned(),
            durability: Durability::Server,
            replicas: 0,
            timeout: Duration::from_secs(10),
            clock: Arc::new(SystemClock),
        })
    }

    fn with_parameter(self, name: &str, value: &str) -> Result<Self> {
        match (name, value) {
            ("prefix", prefix) => self.with_prefix(prefix),
            ("durability", "server") => Ok(self.with_durability(Durability::Server)),
            ("durability", "required") => Ok(self.with_durability(Durability::Required)),
            ("durability", _) => Err(error::config("the URL's durability is server or required")),
            ("replicas", count) => match count.parse() {
                Ok(count) => Ok(self.with_replicas(count)),
                Err(_) => Err(error::config("the URL's replicas is a number, 255 at most")),
            },
            // The value may be a password.
            _ => {
                let message = format!("the URL's parameter {name:?} is unknown; use prefix, durability or replicas");
                Err(error::config(message))
            }
        }
    }

    /// Keeps the data in keys that begin with this prefix and a colon, within braces: `{steps:7}` for build 7, since
    /// it is `steps` unless set.
    ///
    /// # Errors
    /// [`Config`](steps_core::ErrorKind::Config) when it is empty, longer than 64 bytes, or has a brace or a NUL.
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Result<Self> {
        self.prefix = prefix.into();
        if self.prefix.is_empty() || self.prefix.len() > PREFIX_BYTES || self.prefix.contains(['{', '}', '\0']) {
            return Err(error::config(format!("a prefix has 1 to {PREFIX_BYTES} bytes, no brace and no NUL")));
        }
        Ok(self)
    }

    /// Says what an answered write has to survive (D1).
    #[must_use]
    pub fn with_durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Answers a write only once so many replicas of its server have it too (D1); 0 unless set. Where too few have it
    /// in time, it is [`Unavailable`](steps_core::ErrorKind::Unavailable) and may have been applied.
    ///
    /// A failover to one of those replicas keeps what was answered. One to another may still lose it: so ask for as many
    /// as each server has.
    #[must_use]
    pub fn with_replicas(mut self, count: u8) -> Self {
        self.replicas = count;
        self
    }

    /// Lets no call take longer than this, queueing included (D4); 10 s unless set.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = clamp_timeout(timeout);
        self
    }

    /// Takes the time from this clock (L4).
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Where it is, without user and password.
    pub(crate) fn location(&self) -> String {
        let nodes: Vec<_> = self.nodes.iter().map(Address::to_string).collect();
        let (nodes, prefix) = (nodes.join(","), &self.prefix);
        if self.is_cluster {
            format!("cluster of {nodes}, prefix {prefix}")
        } else {
            format!("{nodes}/{}, prefix {prefix}", self.database)
        }
    }
}

/// Without the password.
impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisOptions")
            .field("location", &self.location())
            .field("is_encrypted", &self.is_encrypted)
            .field("durability", &self.durability)
            .field("replicas", &self.replicas)
            .field("timeout", &self.timeout)
            .field("clock", &self.clock)
            .finish_non_exhaustive()
    }
}

/// `HOST`, `HOST:PORT`, or with an address of IPv6 `[HOST]:PORT`.
fn address(text: &str) -> Option<Address> {
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
        assert_eq!((read.durability, read.replicas), (Durability::Required, 2));
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
    fn what_it_does_not_know_is_refused_and_no_value_shown() {
        for (url, said) in [
            ("redis://cache?pasword=secret", "\"pasword\" is unknown"),
            ("redis://cache?durability=secret", "server or required"),
            ("redis://cache?replicas=secret", "255 at most"),
            ("redis://cache?replicas=256", "255 at most"),
            ("redis://cache?replicas=-1", "255 at most"),
            ("redis://cache?replicas=", "255 at most"),
            ("redis://cache?prefix=", "1 to 64 bytes"),
            ("redis://cache?prefix={secret}", "no brace"),
            ("redis://cache?prefix=%ff", "not UTF-8"),
            ("redis://ci:secret@cache:port", "cannot be read"),
            ("redis://ci:12?secret=34@cache", "cannot be read"),
            ("redis://ci:secret@/1", "cannot be read"),
            ("redis://cache/secret", "cannot be read"),
            ("redis-cluster://ci:secret@a,", "cannot be read"),
            ("redis-cluster://a,b/1", "cannot be read"),
            ("redis://ci:sec#ret@cache", "%23"),
            ("redis:cache", "begins with"),
        ] {
            let error = RedisOptions::from_url(url).unwrap_err();
            assert_eq!(error.kind(), steps_core::ErrorKind::Config, "{url}");
            let shown = format!("{error} {error:?}");
            assert!(shown.contains(said) && !shown.contains("secret"), "{url}: {shown}");
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
