use std::{
    collections::BTreeSet,
    io,
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{Redis, RedisOptions, process::TIME_LIMIT, redis::field};

const PRIMARIES: usize = 3;
const SLOTS: usize = 16384;

/// Settings of a node. The cluster forms and fails over within seconds, and its replicas stay with their primaries.
const SETTINGS: &str = "\
cluster-enabled yes
cluster-node-timeout 2000
cluster-allow-replica-migration no
repl-diskless-sync-delay 0
repl-ping-replica-period 1
";

/// A private Redis Cluster of 3 primaries, with or without a replica each. Dropping it stops all nodes.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<Redis>,
}

impl RedisCluster {
    pub(crate) fn start(options: RedisOptions, replicas: usize) -> io::Result<Self> {
        let nodes = PRIMARIES * (1 + replicas);
        let nodes = (0..nodes).map(|_| Redis::start(&options, Some(SETTINGS))).collect::<io::Result<_>>()?;
        let cluster = Self { nodes };
        cluster.form()?;
        cluster.wait_until_ok()?;
        Ok(cluster)
    }

    /// Forms the cluster, as `redis-cli --cluster create` does.
    fn form(&self) -> io::Result<()> {
        for (index, node) in self.nodes.iter().enumerate() {
            // Distinct from the start, so that nodes do not have to resolve conflicts of epochs.
            node.query::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()])?;
            for other in &self.nodes[..index] {
                let port = other.port().to_string();
                let bus = other.bus_port().unwrap_or_default().to_string();
                node.query::<()>(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus])?;
            }
        }
        let (primaries, replicas) = self.nodes.split_at(PRIMARIES);
        for (index, primary) in primaries.iter().enumerate() {
            let [first, after] = [index, index + 1].map(|index| index * SLOTS / PRIMARIES);
            let [first, last] = [first, after - 1].map(|slot| slot.to_string());
            primary.query::<()>(&["CLUSTER", "ADDSLOTSRANGE", &first, &last])?;
        }
        self.wait_until("know each other", || self.agree())?;
        for (primary, replica) in primaries.iter().zip(replicas) {
            let primary: String = primary.query(&["CLUSTER", "MYID"])?;
            replica.query::<()>(&["CLUSTER", "REPLICATE", &primary])?;
        }
        Ok(())
    }

    /// The URL of the cluster, `redis-cluster://` with the addresses of all nodes.
    #[must_use]
    pub fn url(&self) -> String {
        let addresses: Vec<_> = self.nodes.iter().map(Redis::address).collect();
        format!("redis-cluster://{}", addresses.join(","))
    }

    /// The nodes. Initially the three primaries, then their replicas in the same order, if there are any.
    #[must_use]
    pub fn nodes(&self) -> &[Redis] {
        &self.nodes
    }

    /// The nodes, for stopping, killing and starting them.
    pub fn nodes_mut(&mut self) -> &mut [Redis] {
        &mut self.nodes
    }

    /// The index of the primary for this key, according to the running nodes.
    ///
    /// # Errors
    /// When there is no primary at the moment, or a node does not answer.
    pub fn primary_of(&self, key: &str) -> io::Result<usize> {
        let mut newest = None;
        for (index, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.runs()) {
            let slot: usize = node.query(&["CLUSTER", "KEYSLOT", key])?;
            let nodes: String = node.query(&["CLUSTER", "NODES"])?;
            let claim = nodes.lines().map(Line::parse).find(|line| line.is_myself).filter(|line| line.has(slot));
            // A former primary that was restarted may still claim the slot, with an older epoch.
            newest = newest.max(claim.map(|line| (line.epoch, index)));
        }
        let (_, index) = newest.ok_or_else(|| io::Error::other(format!("no node is primary for {key}")))?;
        Ok(index)
    }

    /// The indices of the running replicas of a node.
    ///
    /// # Errors
    /// When a node does not answer.
    pub fn replicas_of(&self, primary: usize) -> io::Result<Vec<usize>> {
        let port = self.nodes[primary].port().to_string();
        let mut replicas = Vec::new();
        for (index, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.runs()) {
            let info: String = node.query(&["INFO", "replication"])?;
            if field(&info, "master_port") == Some(&port) {
                replicas.push(index);
            }
        }
        Ok(replicas)
    }

    /// Waits until the running nodes agree on the roles and slots and accept commands, and the replicas are in sync.
    /// To be called after a failover or a restart.
    ///
    /// # Errors
    /// When that takes more than a minute, or a node does not answer.
    pub fn wait_until_ok(&self) -> io::Result<()> {
        self.wait_until("are ok and in sync", || {
            for node in self.nodes.iter().filter(|node| node.runs()) {
                let info: String = node.query(&["CLUSTER", "INFO"])?;
                let replication: String = node.query(&["INFO", "replication"])?;
                let is_in_sync = field(&replication, "master_link_status").is_none_or(|status| status == "up");
                if field(&info, "cluster_state") != Some("ok") || !is_in_sync {
                    return Ok(false);
                }
            }
            Ok(self.agree()? && self.all_have_a_role()?)
        })
    }

    /// Whether each running node knows all nodes, with the same roles.
    fn agree(&self) -> io::Result<bool> {
        let mut views = BTreeSet::new();
        for node in self.nodes.iter().filter(|node| node.runs()) {
            let nodes: String = node.query(&["CLUSTER", "NODES"])?;
            if nodes.contains("handshake") {
                return Ok(false);
            }
            views.insert(nodes.lines().map(|line| Line::parse(line).role()).collect::<BTreeSet<_>>());
        }
        Ok(views.len() == 1 && views.first().is_some_and(|view| view.len() == self.nodes.len()))
    }

    /// Whether each node serves slots or is a replica. A restarted node has neither role until it has learned its role.
    fn all_have_a_role(&self) -> io::Result<bool> {
        let Some(node) = self.nodes.iter().find(|node| node.runs()) else { return Ok(false) };
        let nodes: String = node.query(&["CLUSTER", "NODES"])?;
        let mut lines = nodes.lines().map(Line::parse);
        Ok(lines.all(|line| line.has_failed || line.primary != "-" || !line.slots.is_empty()))
    }

    fn wait_until(&self, what: &str, condition: impl Fn() -> io::Result<bool>) -> io::Result<()> {
        let start = Instant::now();
        loop {
            // A node that is starting may not answer yet.
            let outcome = condition();
            if matches!(outcome, Ok(true)) {
                return Ok(());
            }
            if start.elapsed() > TIME_LIMIT {
                outcome?;
                let node = self.nodes.iter().find(|node| node.runs());
                let nodes: String =
                    node.map_or(Ok("no node is running".to_owned()), |node| node.query(&["CLUSTER", "NODES"]))?;
                return Err(io::Error::other(format!("timed out waiting until the nodes {what}:\n{nodes}")));
            }
            sleep(Duration::from_millis(50));
        }
    }
}

/// A line of the answer of `CLUSTER NODES`: a node as another node sees it.
struct Line<'a> {
    id: &'a str,
    is_myself: bool,
    has_failed: bool,
    /// The id of its primary, or `-`.
    primary: &'a str,
    epoch: u64,
    /// Slot ranges, without slots that are being migrated.
    slots: Vec<&'a str>,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Self {
        let mut words = line.split(' ');
        let mut next = || words.next().unwrap_or_default();
        let id = next();
        let _address = next();
        let flags = next();
        let primary = next();
        let _ping_sent = next();
        let _pong_received = next();
        let epoch = next().parse().unwrap_or_default();
        let _link_state = next();
        let slots = words.filter(|slots| !slots.starts_with('[')).collect();
        let [is_myself, has_failed] = ["myself", "fail"].map(|flag| flags.contains(flag));
        Self { id, is_myself, has_failed, primary, epoch, slots }
    }

    /// The part on which all nodes must agree.
    fn role(&self) -> String {
        format!("{} {} {}", self.id, self.primary, self.slots.join(" "))
    }

    fn has(&self, slot: usize) -> bool {
        self.slots.iter().any(|slots| {
            let (first, last) = slots.split_once('-').unwrap_or((slots, slots));
            let [first, last] = [first, last].map(|slot| slot.parse().unwrap_or(usize::MAX));
            (first..=last).contains(&slot)
        })
    }
}
