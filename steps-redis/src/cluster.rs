//! The slot map of a Redis Cluster: which node serves which slot.
//!
//! This crate routes commands itself instead of using the driver's cluster client. That client sends a command again
//! after its connection was lost, although the command may have been applied: a write that is not idempotent would be
//! applied twice (D6). It also ends a call after 500 ms without a reply, however much time the caller has.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use redis::{RedisError, Value, cluster_routing::Slot};
use steps_batch::BatchError;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    connection::{Channel, SendError},
    error,
    node::{Address, Node},
    options::RedisOptions,
};

/// The shortest time between two refreshes of the slot map.
const REFRESH_INTERVAL: Duration = Duration::from_millis(50);

/// The known nodes of a cluster, and its slot map.
#[derive(Debug)]
pub(crate) struct Cluster {
    options: Arc<RedisOptions>,
    nodes: Mutex<HashMap<Address, Arc<Node>>>,
    slots: RwLock<Slots>,
    /// The time of the last refresh. Locked during a refresh.
    last_refresh: tokio::sync::Mutex<Option<Instant>>,
}

/// The slot map: the primary of each slot.
#[derive(Debug, Default)]
struct Slots {
    nodes: HashMap<Slot, Arc<Node>>,
    primaries: HashMap<Address, Arc<Node>>,
    /// The last reply to CLUSTER SLOTS, to skip rebuilding an unchanged map. `None` after a MOVED.
    ranges: Option<Vec<SlotRange>>,
}

impl Cluster {
    pub(crate) fn new(options: Arc<RedisOptions>) -> Self {
        Self { options, nodes: Mutex::default(), slots: RwLock::default(), last_refresh: tokio::sync::Mutex::default() }
    }

    /// Opens the first connection: to the nodes of the URL at the same time, until one of them accepts it.
    pub(crate) async fn connect(&self) -> Result<(), RedisError> {
        let mut connecting = JoinSet::new();
        for address in &self.options.nodes {
            let node = self.node_at(address.clone());
            connecting.spawn(async move { node.connect().await });
        }
        let mut outcome = Ok(());
        while let Some(connected) = connecting.join_next().await {
            // A task fails to join only when its runtime shuts down.
            if let Ok(connected) = connected {
                outcome = connected;
                if outcome.is_ok() {
                    break;
                }
            }
        }
        outcome
    }

    /// The primary of a slot, if it is known.
    pub(crate) fn primary_of(&self, slot: Slot) -> Option<Arc<Node>> {
        self.slots().nodes.get(&slot).cloned()
    }

    /// The node at an address, which becomes a known node.
    pub(crate) fn node_at(&self, address: Address) -> Arc<Node> {
        let mut nodes = self.known_nodes();
        let node = nodes
            .entry(address)
            .or_insert_with_key(|address| Arc::new(Node::new(address.clone(), Arc::clone(&self.options))));
        Arc::clone(node)
    }

    /// Records that a slot has moved to another primary.
    pub(crate) fn set_primary(&self, slot: Slot, node: Arc<Node>) {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        slots.primaries.insert(node.address.clone(), Arc::clone(&node));
        slots.nodes.insert(slot, node);
        slots.ranges = None;
    }

    /// Whether a node has slots, as far as known.
    pub(crate) fn has_slots(&self, node: &Node) -> bool {
        self.slots().primaries.contains_key(&node.address)
    }

    /// Refreshes the slot map at this interval until the node has no slots.
    pub(crate) async fn wait_for_takeover(&self, node: &Node, interval: Duration, deadline: Instant) {
        loop {
            let _ = self.refresh(deadline).await;
            if !self.has_slots(node) {
                break;
            }
            sleep(interval).await;
        }
    }

    /// All nodes that have a slot.
    pub(crate) fn primaries(&self) -> Vec<Arc<Node>> {
        self.slots().primaries.values().cloned().collect()
    }

    /// All nodes of the URL, and those with slots in the last refresh.
    pub(crate) fn all_nodes(&self) -> Vec<Arc<Node>> {
        self.known_nodes().values().cloned().collect()
    }

    /// Refreshes the slot map, unless the last refresh is too recent. All known nodes are queried at the same time and
    /// the first reply counts, so a node that is down or hangs does not delay the refresh.
    ///
    /// # Errors
    /// The error of one of the nodes, if no node replies.
    pub(crate) async fn refresh(&self, deadline: Instant) -> Result<(), BatchError> {
        let mut last_refresh = self.last_refresh.lock().await;
        if last_refresh.is_some_and(|last_refresh| last_refresh.elapsed() < REFRESH_INTERVAL) {
            return Ok(());
        }
        for address in &self.options.nodes {
            self.node_at(address.clone());
        }
        let mut queries = JoinSet::new();
        for node in self.all_nodes() {
            queries.spawn(async move { query_ranges(&node, deadline).await });
        }
        let mut last_error = None;
        while let Some(reply) = queries.join_next().await {
            match reply {
                Ok(Ok(ranges)) if !ranges.is_empty() => {
                    self.set_ranges(ranges);
                    *last_refresh = Some(Instant::now());
                    return Ok(());
                }
                Ok(Ok(_)) => last_error = Some(BatchError::transient("the cluster has no slots yet")),
                Ok(Err(error)) => last_error = Some(error),
                // The runtime is shutting down.
                Err(_) => {}
            }
        }
        *last_refresh = Some(Instant::now());
        Err(last_error.unwrap_or_else(|| BatchError::transient("no node of the cluster can be reached")))
    }

    /// Rebuilds the slot map, unless it is unchanged.
    fn set_ranges(&self, ranges: Vec<SlotRange>) {
        if self.slots().ranges.as_ref() == Some(&ranges) {
            return;
        }
        let mut slots = Slots::default();
        for SlotRange { first, last, address } in &ranges {
            let node = self.node_at(address.clone());
            slots.nodes.extend((*first..=*last).filter_map(Slot::new).map(|slot| (slot, Arc::clone(&node))));
            slots.primaries.insert(address.clone(), node);
        }
        // A node that has left may have joined another cluster, so it must not be queried about this one.
        self.known_nodes()
            .retain(|address, _| slots.primaries.contains_key(address) || self.options.nodes.contains(address));
        slots.ranges = Some(ranges);
        *self.slots.write().unwrap_or_else(PoisonError::into_inner) = slots;
    }

    fn slots(&self) -> RwLockReadGuard<'_, Slots> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_nodes(&self) -> MutexGuard<'_, HashMap<Address, Arc<Node>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Consecutive slots with the same primary.
#[derive(Debug, Eq, PartialEq)]
struct SlotRange {
    first: u16,
    last: u16,
    address: Address,
}

/// Queries a node for the slot ranges of its cluster.
async fn query_ranges(node: &Node, deadline: Instant) -> Result<Vec<SlotRange>, BatchError> {
    let mut cmd = redis::cmd("CLUSTER");
    cmd.arg("SLOTS");
    match node.send(Channel::Default, &cmd, deadline).await {
        Ok(Value::Array(ranges)) => Ok(ranges.iter().filter_map(|range| parse_range(range, &node.address)).collect()),
        Ok(_) => Err(error::unexpected_reply()),
        Err(SendError::Refused(error)) if error.details().is_some_and(|it| it.contains("cluster support disabled")) => {
            let message = "the server is not part of a cluster; write redis:// in the URL";
            Err(BatchError::new(steps_core::ErrorKind::Config, message))
        }
        Err(error) => Err(error.into_batch_error()),
    }
}

/// Parses a range of a reply to CLUSTER SLOTS: the first and last slot, then the primary with its host, port and more.
fn parse_range(range: &Value, sender: &Address) -> Option<SlotRange> {
    let Value::Array(parts) = range else { return None };
    let [Value::Int(first), Value::Int(last), Value::Array(primary), ..] = parts.as_slice() else { return None };
    let [host, Value::Int(port), ..] = primary.as_slice() else { return None };
    let host = match host {
        Value::BulkString(host) => str::from_utf8(host).ok()?,
        Value::SimpleString(host) => host,
        Value::Nil => "",
        _ => return None,
    };
    let host = match host {
        // The sender does not know the host.
        "?" => return None,
        // The host is the sender's own.
        "" => &sender.host,
        host => host,
    };
    let address = Address { host: host.to_owned(), port: u16::try_from(*port).ok()? };
    Some(SlotRange { first: u16::try_from(*first).ok()?, last: u16::try_from(*last).ok()?, address })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_slots_names_its_primary() {
        let sender = Address { host: "seed".to_owned(), port: 1 };
        let range = |host: &str| {
            let reply = format!("*3\r\n:5\r\n:9\r\n*3\r\n{host}:7001\r\n$2\r\nid\r\n");
            parse_range(&redis::parse_redis_value(reply.as_bytes()).unwrap(), &sender)
        };
        let of = |host: &str| Some(SlotRange { first: 5, last: 9, address: Address { host: host.into(), port: 7001 } });
        assert_eq!(range("$4\r\nhost\r\n"), of("host"));
        assert_eq!(range("$0\r\n\r\n"), of("seed"));
        assert_eq!(range("$-1\r\n"), of("seed"));
        assert_eq!(range("$1\r\n?\r\n"), None);
    }

    #[test]
    fn a_node_that_has_left_is_forgotten() {
        let cluster = Cluster::new(Arc::new(RedisOptions::from_url("redis-cluster://seed:1").unwrap()));
        let address = |host: &str| Address { host: host.into(), port: 1 };
        let range = |first, last, host| SlotRange { first, last, address: address(host) };
        let hosts = |nodes: Vec<Arc<Node>>| {
            let mut hosts: Vec<_> = nodes.iter().map(|node| node.address.host.clone()).collect();
            hosts.sort();
            hosts
        };
        cluster.node_at(address("seed"));
        cluster.set_ranges(vec![range(0, 99, "old"), range(100, 16383, "stays")]);
        let old = cluster.node_at(address("old"));
        let slot = Slot::new(5).unwrap();
        // A move holds until the next refresh.
        for ranges in [vec![range(0, 99, "old"), range(100, 16383, "stays")], vec![range(0, 16383, "stays")]] {
            cluster.set_primary(slot, cluster.node_at(address("other")));
            assert_eq!(cluster.primary_of(slot).unwrap().address, address("other"));
            assert_eq!(hosts(cluster.primaries()), ["old", "other", "stays"]);
            cluster.set_ranges(ranges);
        }
        assert!(!cluster.has_slots(&old));
        assert_eq!(cluster.primary_of(slot).unwrap().address, address("stays"));
        assert_eq!(hosts(cluster.primaries()), ["stays"]);
        assert_eq!(hosts(cluster.all_nodes()), ["seed", "stays"]);
    }

    #[test]
    fn a_redirect_names_a_node() {
        let sender = Address { host: "sender".into(), port: 1 };
        for (text, host) in [("host:7", Some("host")), (":7", Some("sender")), ("[::1]:7", Some("::1")), ("?:7", None)]
        {
            let expected = host.map(|host| Address { host: host.into(), port: 7 });
            assert_eq!(Address::from_redirect(text, &sender), expected, "{text}");
        }
    }
}
