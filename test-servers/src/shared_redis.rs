use std::{env, io, sync::OnceLock};

use redis::{Client, Cmd, ConnectionAddr, RedisResult};

use crate::{Redis, RedisCluster, RedisOptions, redis::connect, shared::fresh_name};

/// Environment variable with the URL of a Redis to use instead of a private server.
pub const REDIS_URL: &str = "STEPS_TEST_REDIS_URL";

/// Environment variable with the URL of a Redis Cluster to use instead of a private one. The URL begins with
/// `redis-cluster://` or `rediss-cluster://` and contains the addresses of one or more nodes.
pub const REDIS_CLUSTER_URL: &str = "STEPS_TEST_REDIS_CLUSTER_URL";

static NODE: OnceLock<Result<Server<Redis>, String>> = OnceLock::new();
static CLUSTER: OnceLock<Result<Server<RedisCluster>, String>> = OnceLock::new();
static REPLICATED_NODE: OnceLock<Result<(Redis, Redis), String>> = OnceLock::new();
static REPLICATED_CLUSTER: OnceLock<Result<RedisCluster, String>> = OnceLock::new();

enum Server<T> {
    Private(T),
    Given(String),
}

/// A fresh key prefix on the Redis that all tests of this process share: a private server, or the one in [`REDIS_URL`].
///
/// # Errors
/// When the private server does not start.
pub fn shared_redis() -> io::Result<KeyPrefix> {
    shared(&NODE, REDIS_URL, || RedisOptions::default().start(), Redis::url)
}

/// A fresh key prefix on the Redis Cluster that all tests of this process share: a private cluster, or the one in
/// [`REDIS_CLUSTER_URL`].
///
/// # Errors
/// When the private cluster does not start.
pub fn shared_redis_cluster() -> io::Result<KeyPrefix> {
    shared(&CLUSTER, REDIS_CLUSTER_URL, || RedisOptions::default().start_cluster(), RedisCluster::url)
}

/// A fresh key prefix on a private Redis with a replica, which all tests of this process share. It is always private,
/// since the one in [`REDIS_URL`] may have no replica.
///
/// # Errors
/// When the private servers do not start.
pub fn shared_replicated_redis() -> io::Result<KeyPrefix> {
    private(&REPLICATED_NODE, || RedisOptions::default().start_with_replica(), |(primary, _)| primary.url())
}

/// As [`shared_replicated_redis`], on a Redis Cluster with a replica for each primary.
///
/// # Errors
/// When the private cluster does not start.
pub fn shared_replicated_redis_cluster() -> io::Result<KeyPrefix> {
    private(&REPLICATED_CLUSTER, || RedisOptions::default().start_cluster(), RedisCluster::url)
}

fn private<T>(
    server: &'static OnceLock<Result<T, String>>,
    start: fn() -> io::Result<T>,
    url: fn(&T) -> String,
) -> io::Result<KeyPrefix> {
    let server = server.get_or_init(|| start().map_err(|error| error.to_string()));
    let url = url(server.as_ref().map_err(|error| io::Error::other(error.as_str()))?);
    Ok(KeyPrefix { url, prefix: fresh_name(), is_deleted: false })
}

fn shared<T>(
    server: &'static OnceLock<Result<Server<T>, String>>,
    variable: &str,
    start: fn() -> io::Result<T>,
    url: fn(&T) -> String,
) -> io::Result<KeyPrefix> {
    let server = server.get_or_init(|| match env::var(variable) {
        Ok(url) => Ok(Server::Given(url)),
        Err(_) => start().map(Server::Private).map_err(|error| error.to_string()),
    });
    let (url, is_deleted) = match server.as_ref().map_err(|error| io::Error::other(error.as_str()))? {
        Server::Private(server) => (url(server), false),
        Server::Given(url) => (url.clone(), true),
    };
    Ok(KeyPrefix { url, prefix: fresh_name(), is_deleted })
}

/// An unused prefix for keys. Dropping the value deletes all keys with the prefix, unless the server is private.
#[derive(Debug)]
pub struct KeyPrefix {
    url: String,
    prefix: String,
    /// Whether drop must delete the keys. The keys of a private server vanish with the server.
    is_deleted: bool,
}

impl KeyPrefix {
    /// The URL of the server or cluster.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The prefix. No key has it yet.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The URL with a parameter `prefix`.
    #[must_use]
    pub fn url_with_prefix(&self) -> String {
        let separator = if self.url.contains('?') { '&' } else { '?' };
        format!("{}{separator}prefix={}", self.url, self.prefix)
    }

    fn delete(&self) -> RedisResult<()> {
        for server in servers(&self.url)? {
            let mut connection = connect(server)?;
            let mut cursor = "0".to_owned();
            loop {
                let keys: Vec<Vec<u8>>;
                // The prefix may be anywhere in a key, such as in a hash tag. It is random, so no other key matches.
                let scan = ["SCAN", &cursor, "MATCH", &format!("*{}*", self.prefix), "COUNT", "1000"];
                (cursor, keys) = Cmd::new().arg(&scan).query(&mut connection)?;
                // One by one, since a cluster rejects commands with keys of several slots.
                for key in keys {
                    redis::cmd("UNLINK").arg(key).query::<()>(&mut connection)?;
                }
                if cursor == "0" {
                    break;
                }
            }
        }
        Ok(())
    }
}

impl Drop for KeyPrefix {
    fn drop(&mut self) {
        if self.is_deleted
            && let Err(error) = self.delete()
        {
            eprintln!("the keys with {} were not all deleted: {error}", self.prefix);
        }
    }
}

/// The server of this URL, or all primaries of its cluster.
fn servers(url: &str) -> RedisResult<Vec<redis::ConnectionInfo>> {
    let url = url.split('?').next().unwrap_or_default();
    let Some((scheme, nodes)) = url.split_once("-cluster://") else {
        return Ok(vec![Client::open(url)?.get_connection_info().clone()]);
    };
    let first = nodes.split(',').next().unwrap_or_default();
    let seed = Client::open(format!("{scheme}://{first}"))?.get_connection_info().clone();
    let nodes: String = redis::cmd("CLUSTER").arg("NODES").query(&mut connect(seed.clone())?)?;
    let primaries = nodes.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let address = words.next()?;
        let flags = words.next()?;
        if !flags.contains("master") || flags.contains("fail") {
            return None;
        }
        let (host, port) = address.split('@').next()?.rsplit_once(':')?;
        let host = host.to_owned();
        let port = port.parse().ok()?;
        let address = match seed.addr().clone() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
                ConnectionAddr::TcpTls { host, port, insecure, tls_params }
            }
            _ => ConnectionAddr::Tcp(host, port),
        };
        Some(seed.clone().set_addr(address))
    });
    Ok(primaries.collect())
}
