//! Which node of a cluster has which slot.

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
    error,
    node::{Address, Lane, NoAnswer, Node},
    options::RedisOptions,
};

/// The cluster is not asked for its slots more often than this.
const ASKED_EVERY: Duration = Duration::from_millis(50);

/// The nodes of a cluster, and the slots of each as far as known.
#[derive(Debug)]
pub(crate) struct Cluster {
    options: Arc<RedisOptions>,
    nodes: Mutex<HashMap<Address, Arc<Node>>>,
    slots: RwLock<Slots>,
    /// When the cluster was asked for its slots last; held by the one who asks.
    asked: tokio::sync::Mutex<Option<Instant>>,
}

/// Which primary has which slot.
#[derive(Debug, Default)]
struct Slots {
    nodes: HashMap<Slot, Arc<Node>>,
    primaries: HashMap<Address, Arc<Node>>,
    /// What the cluster said, unless a slot was heard to have moved since: it mostly says the same again.
    ranges: Option<Vec<Range>>,
}

impl Cluster {
    pub(crate) fn new(options: Arc<RedisOptions>) -> Self {
        Self { options, nodes: Mutex::default(), slots: RwLock::default(), asked: tokio::sync::Mutex::default() }
    }

    /// Makes the first connection: to whichever of the nodes that the URL names is there first.
    pub(crate) async fn connect(&self) -> Result<(), RedisError> {
        let mut connecting = JoinSet::new();
        for address in &self.options.nodes {
            let node = self.node_at(address.clone());
            connecting.spawn(async move { node.connect().await });
        }
        let mut outcome = Ok(());
        while let Some(connected) = connecting.join_next().await {
            // One that did not end by itself has ended with its runtime.
            if let Ok(connected) = connected {
                outcome = connected;
                if outcome.is_ok() {
                    break;
                }
            }
        }
        outcome
    }

    /// The node that has the slot, as far as known.
    pub(crate) fn node_of(&self, slot: Slot) -> Option<Arc<Node>> {
        self.known().nodes.get(&slot).cloned()
    }

    /// The node at this address.
    pub(crate) fn node_at(&self, address: Address) -> Arc<Node> {
        let mut nodes = self.nodes();
        let node = nodes
            .entry(address)
            .or_insert_with_key(|address| Arc::new(Node::new(address.clone(), Arc::clone(&self.options))));
        Arc::clone(node)
    }

    /// Notes that a slot has moved.
    pub(crate) fn moved(&self, slot: Slot, node: Arc<Node>) {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        slots.primaries.insert(node.address.clone(), Arc::clone(&node));
        slots.nodes.insert(slot, node);
        slots.ranges = None;
    }

    /// Whether the node has slots, as far as known.
    pub(crate) fn has_slots(&self, node: &Node) -> bool {
        self.known().primaries.contains_key(&node.address)
    }

    /// Asks the cluster from time to time, until this node has no slots.
    pub(crate) async fn taken_over(&self, node: &Node, pause: Duration, deadline: Instant) {
        loop {
            let _ = self.refresh(deadline).await;
            if !self.has_slots(node) {
                break;
            }
            sleep(pause).await;
        }
    }

    /// Every node that has a slot.
    pub(crate) fn primaries(&self) -> Vec<Arc<Node>> {
        self.known().primaries.values().cloned().collect()
    }

    /// Every node that the URL names, or that had slots when the cluster was asked last.
    pub(crate) fn all(&self) -> Vec<Arc<Node>> {
        self.nodes().values().cloned().collect()
    }

    /// Asks the cluster which node has which slot, unless that was asked just now. The first answer counts: a node
    /// that is down or hangs does not hold up the others.
    ///
    /// # Errors
    /// When no node answers: what one of them gave.
    pub(crate) async fn refresh(&self, deadline: Instant) -> Result<(), BatchError> {
        let mut asked = self.asked.lock().await;
        if asked.is_some_and(|asked| asked.elapsed() < ASKED_EVERY) {
            return Ok(());
        }
        for address in &self.options.nodes {
            self.node_at(address.clone());
        }
        let mut asking = JoinSet::new();
        for node in self.all() {
            asking.spawn(async move { (ranges(&node, deadline).await, node) });
        }
        let mut failure = None;
        while let Some(answer) = asking.join_next().await {
            match answer {
                Ok((Ok(ranges), _)) if !ranges.is_empty() => {
                    self.know(ranges);
                    *asked = Some(Instant::now());
                    return Ok(());
                }
                Ok((Ok(_), _)) => failure = Some(BatchError::transient("the cluster has no slots yet")),
                Ok((Err(error), _)) => failure = Some(error),
                // It ends with its runtime.
                Err(_) => {}
            }
        }
        *asked = Some(Instant::now());
        Err(failure.unwrap_or_else(|| BatchError::transient("no node of the cluster can be reached")))
    }

    fn know(&self, ranges: Vec<Range>) {
        if self.known().ranges.as_ref() == Some(&ranges) {
            return;
        }
        let mut slots = Slots::default();
        for Range { first, last, address } in &ranges {
            let node = self.node_at(address.clone());
            slots.nodes.extend((*first..=*last).filter_map(Slot::new).map(|slot| (slot, Arc::clone(&node))));
            slots.primaries.insert(address.clone(), node);
        }
        // One that has left may be of another cluster by now, and is not to be asked about this one.
        self.nodes().retain(|address, _| slots.primaries.contains_key(address) || self.options.nodes.contains(address));
        slots.ranges = Some(ranges);
        *self.slots.write().unwrap_or_else(PoisonError::into_inner) = slots;
    }

    fn known(&self) -> RwLockReadGuard<'_, Slots> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn nodes(&self) -> MutexGuard<'_, HashMap<Address, Arc<Node>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Slots that follow each other, and the primary that has them.
#[derive(Debug, Eq, PartialEq)]
struct Range {
    first: u16,
    last: u16,
    address: Address,
}

/// What a node says about the slots.
async fn ranges(node: &Node, deadline: Instant) -> Result<Vec<Range>, BatchError> {
    let mut cmd = redis::cmd("CLUSTER");
    cmd.arg("SLOTS");
    match node.send(Lane::Calls, &cmd, deadline).await {
        Ok(Value::Array(ranges)) => Ok(ranges.iter().filter_map(|range| read_range(range, &node.address)).collect()),
        Ok(_) => Err(error::unexpected_answer()),
        Err(NoAnswer::Refused(error)) if error.details().is_some_and(|it| it.contains("cluster support disabled")) => {
            let message = "the server is not part of a cluster; write redis:// in the URL";
            Err(BatchError::new(steps_core::ErrorKind::Config, message))
        }
        Err(no_answer) => Err(no_answer.into_failure()),
    }
}

/// First and last slot, then the primary: its host, port and more.
fn read_range(range: &Value, by: &Address) -> Option<Range> {
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
        // Nobody knows it.
        "?" => return None,
        // That of the node that was asked.
        "" => &by.host,
        host => host,
    };
    let address = Address { host: host.to_owned(), port: u16::try_from(*port).ok()? };
    Some(Range { first: u16::try_from(*first).ok()?, last: u16::try_from(*last).ok()?, address })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_slots_names_its_primary() {
        let by = Address { host: "seed".to_owned(), port: 1 };
        let range = |host: &str| {
            let answer = format!("*3\r\n:5\r\n:9\r\n*3\r\n{host}:7001\r\n$2\r\nid\r\n");
            read_range(&redis::parse_redis_value(answer.as_bytes()).unwrap(), &by)
        };
        let of = |host: &str| Some(Range { first: 5, last: 9, address: Address { host: host.into(), port: 7001 } });
        assert_eq!(range("$4\r\nhost\r\n"), of("host"));
        assert_eq!(range("$0\r\n\r\n"), of("seed"));
        assert_eq!(range("$-1\r\n"), of("seed"));
        assert_eq!(range("$1\r\n?\r\n"), None);
    }
    #[test]
    fn a_node_that_has_left_is_forgotten() {
        let cluster = Cluster::new(Arc::new(RedisOptions::from_url("redis-cluster://seed:1").unwrap()));
        let address = |host: &str| Address { host: host.into(), port: 1 };
        let range = |first, last, host| Range { first, last, address: address(host) };
        let hosts = |nodes: Vec<Arc<Node>>| {
            let mut hosts: Vec<_> = nodes.iter().map(|node| node.address.host.clone()).collect();
            hosts.sort();
            hosts
        };
        cluster.node_at(address("seed"));
        cluster.know(vec![range(0, 99, "old"), range(100, 16383, "stays")]);
        let (old, slot) = (cluster.node_at(address("old")), Slot::new(5).unwrap());
        // What a slot that moves says lasts until the cluster is asked again.
        for known in [vec![range(0, 99, "old"), range(100, 16383, "stays")], vec![range(0, 16383, "stays")]] {
            cluster.moved(slot, cluster.node_at(address("other")));
            assert_eq!(cluster.node_of(slot).unwrap().address, address("other"));
            assert_eq!(hosts(cluster.primaries()), ["old", "other", "stays"]);
            cluster.know(known);
        }
        assert!(!cluster.has_slots(&old));
        assert_eq!(cluster.node_of(slot).unwrap().address, address("stays"));
        assert_eq!(
            (hosts(cluster.primaries()), hosts(cluster.all())),
            (vec!["stays".into()], vec!["seed".into(), "stays".into()])
        );
    }

    #[test]
    fn a_redirect_names_a_node() {
        let by = Address { host: "by".into(), port: 1 };
        for (text, host) in [("host:7", Some("host")), (":7", Some("by")), ("[::1]:7", Some("::1")), ("?:7", None)] {
            let expected = host.map(|host| Address { host: host.into(), port: 7 });
            assert_eq!(Address::from_redirect(text, &by), expected, "{text}");
        }
    }
}
