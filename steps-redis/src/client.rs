//! Routes each call to the node that serves its build, and retries it until its deadline where that is safe (D6).
//!
//! The driver's own cluster client does not fit: see [`cluster`](crate::cluster).

use std::{sync::Arc, time::Duration};

use redis::{Arg, Cmd, ServerError, Value, cluster_routing::Slot};
use steps_batch::BatchError;
use steps_core::{Call, Error, ErrorKind, Result};
use tokio::{
    runtime::Handle,
    sync::mpsc,
    time::{Instant, sleep},
};
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};

use crate::{
    BACKEND,
    cluster::Cluster,
    connection::{Channel, SendError},
    error,
    node::{Address, Node},
    options::RedisOptions,
    script::Script,
    server::{self, DurabilityReport, ServerInfo, Settings},
};

/// The first delay before a retry. Each retry doubles it, up to [`MAX_BACKOFF`].
const BACKOFF: Duration = Duration::from_millis(2);

/// The longest delay before a retry.
const MAX_BACKOFF: Duration = Duration::from_millis(100);

/// After this time without a reply from a node of a cluster, the slot map is checked for a failover of that node.
const FAILOVER_CHECK_AFTER: Duration = Duration::from_secs(1);

/// How many redirects are followed without a delay. Two nodes may redirect to each other.
const MAX_REDIRECTS: u32 = 5;

/// Runs the requests of a store.
#[derive(Debug)]
pub(crate) struct Client {
    nodes: Nodes,
    timeout: Duration,
    /// Whether writes wait for replicas.
    is_replicated: bool,
    /// The runtime of the store, on which all connections and requests run.
    runtime: Handle,
    /// The receiver is owned by a task of the runtime, so the channel closes when the runtime shuts down.
    runtime_guard: mpsc::Sender<()>,
    /// Tracks the calls that have not ended.
    calls: TaskTracker,
}

#[derive(Debug)]
enum Nodes {
    One(Arc<Node>),
    Cluster(Box<Cluster>),
}

/// A command with one key, or a script with the keys of one build.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    cmd: Cmd,
    script: Option<&'static Script>,
    slot: Slot,
    channel: Channel,
}

impl Request {
    pub(crate) fn command(name: &str, key: &str) -> Self {
        let mut cmd = redis::cmd(name);
        cmd.arg(key);
        Self { cmd, script: None, slot: Slot::for_key(key), channel: Channel::Default }
    }

    pub(crate) fn script(script: &'static Script, keys: &[&str]) -> Self {
        let mut cmd = script.by_hash();
        cmd.arg(keys.len()).arg(keys);
        let slot = Slot::for_key(keys.first().copied().unwrap_or_default());
        Self { cmd, script: Some(script), slot, channel: Channel::Default }
    }

    pub(crate) fn arg(mut self, arg: impl redis::ToRedisArgs) -> Self {
        self.cmd.arg(arg);
        self
    }

    /// Uses the bulk connection, so that a long reply does not delay the replies to other requests.
    pub(crate) fn on_bulk_connection(mut self) -> Self {
        self.channel = Channel::Bulk;
        self
    }

    /// The request with the text of its script in place of the hash, for a server that does not have it in its cache.
    fn by_text(&self) -> Option<Cmd> {
        let mut cmd = self.script?.by_text();
        for arg in self.cmd.args_iter().skip(2) {
            if let Arg::Simple(bytes) = arg {
                cmd.arg(bytes);
            }
        }
        Some(cmd)
    }
}

/// The outcome of one attempt to run a request.
enum AttemptOutcome {
    Done(Value),
    Failed(BatchError),
    /// Nothing was applied. Another node serves the slot.
    Redirected(Redirect),
    /// Nothing was applied. A later attempt may succeed.
    Wait(BatchError),
    /// The request may have been applied.
    Lost(BatchError),
    TimedOut {
        was_sent: bool,
    },
}

struct Redirect {
    node: Arc<Node>,
    asking: bool,
}

impl Client {
    /// A client on the current runtime, without a connection.
    pub(crate) fn new(options: Arc<RedisOptions>) -> Self {
        let runtime = Handle::current();
        let (runtime_guard, mut receiver) = mpsc::channel(1);
        runtime.spawn(async move { receiver.recv().await });
        let timeout = options.timeout;
        let is_replicated = options.replicas > 0;
        let nodes = match options.nodes.first() {
            Some(address) if !options.is_cluster => Nodes::One(Arc::new(Node::new(address.clone(), options))),
            _ => Nodes::Cluster(Box::new(Cluster::new(options))),
        };
        Self { nodes, timeout, is_replicated, runtime, runtime_guard, calls: TaskTracker::new() }
    }

    /// Opens the first connection.
    ///
    /// # Errors
    /// A [transient](BatchError::is_transient) error while the server is starting. If it cannot be reached, the error
    /// is not transient.
    pub(crate) async fn connect(&self, deadline: Instant) -> Result<(), BatchError> {
        match &self.nodes {
            Nodes::One(node) => {
                node.connect().await.map_err(error::initial_connect_error)?;
                server::ensure_standalone(node, deadline).await
            }
            Nodes::Cluster(cluster) => {
                cluster.connect().await.map_err(error::initial_connect_error)?;
                cluster.refresh(deadline).await
            }
        }
    }

    /// Runs a request with the time-out of the store. For a caller on another runtime, a task of the store's runtime
    /// runs the request, since timers and connections belong to that runtime (D5).
    ///
    /// # Errors
    /// Those of the server; `Unavailable` if the deadline passes or the runtime shuts down; `Closed` after a close.
    pub(crate) async fn call(self: &Arc<Self>, call: Call, request: Request) -> Result<Value> {
        let deadline = Instant::now() + self.timeout;
        self.call_until(deadline, call, request).await
    }

    pub(crate) async fn call_until(
        self: &Arc<Self>,
        deadline: Instant,
        call: Call,
        mut request: Request,
    ) -> Result<Value> {
        let is_replicated = self.is_replicated && call.operation().is_write();
        if is_replicated {
            request.channel = Channel::Replicated;
        }
        let is_idempotent = call.is_idempotent();
        // A replicated write holds the replication barrier, so it must go on even when its caller does not poll it.
        if self.on_own_runtime() && !is_replicated {
            let _token = self.begin(call)?;
            let result = self.run(request, is_idempotent, deadline).await;
            return result.map_err(|error| error.into_error(call, BACKEND));
        }
        let client = Arc::clone(self);
        Box::pin(self.spawn(call, async move { client.run(request, is_idempotent, deadline).await })).await
    }

    /// Runs the work of a call on the store's runtime.
    ///
    /// # Errors
    /// The errors of the work; `Unavailable` if the runtime shuts down; `Closed` after a close.
    pub(crate) async fn run_work<T: Send + 'static>(
        &self,
        call: Call,
        work: impl Future<Output = Result<T, BatchError>> + Send + 'static,
    ) -> Result<T> {
        if !self.on_own_runtime() {
            return self.spawn(call, work).await;
        }
        let _token = self.begin(call)?;
        work.await.map_err(|error| error.into_error(call, BACKEND))
    }

    /// Runs the work of a call in a task of the store's runtime.
    ///
    /// # Errors
    /// As `run_work`.
    async fn spawn<T: Send + 'static>(
        &self,
        call: Call,
        work: impl Future<Output = Result<T, BatchError>> + Send + 'static,
    ) -> Result<T> {
        let token = self.begin(call)?;
        let task = self.runtime.spawn(async move {
            let _token = token;
            work.await
        });
        let result = task.await.unwrap_or_else(|_| {
            let error = BatchError::new(ErrorKind::Unavailable, "the runtime that the store ran on is gone");
            Err(error.with_may_have_applied(true))
        });
        result.map_err(|error| error.into_error(call, BACKEND))
    }

    /// Registers a call.
    ///
    /// # Errors
    /// `Closed` if the store is closed or its runtime has shut down.
    fn begin(&self, call: Call) -> Result<TaskTrackerToken> {
        let token = self.calls.token();
        if self.calls.is_closed() || self.runtime_guard.is_closed() {
            return Err(Error::closed(call).with_backend(BACKEND));
        }
        Ok(token)
    }

    /// Whether the caller runs on the store's runtime.
    fn on_own_runtime(&self) -> bool {
        Handle::try_current().is_ok_and(|current| current.id() == self.runtime.id())
    }

    /// Refuses new calls, waits for the running ones, and closes the connections (D7).
    ///
    /// # Errors
    /// If the running calls take longer than the time-out.
    pub(crate) async fn close(self: &Arc<Self>) -> Result<(), BatchError> {
        self.calls.close();
        let client = Arc::clone(self);
        let task = self.runtime.spawn(async move {
            let ended = tokio::time::timeout(client.timeout, client.calls.wait()).await;
            client.all_nodes().iter().for_each(|node| node.disconnect());
            ended.map_err(|_| error::timed_out(client.timeout, false, None))
        });
        // The task is missing only if the runtime has shut down, which has ended all calls and connections.
        task.await.unwrap_or(Ok(()))
    }

    /// The nodes that take writes, after a refresh of the slot map.
    ///
    /// # Errors
    /// If no node of the cluster replies.
    pub(crate) async fn primaries(&self, deadline: Instant) -> Result<Vec<Arc<Node>>, BatchError> {
        match &self.nodes {
            Nodes::One(node) => Ok(vec![Arc::clone(node)]),
            Nodes::Cluster(cluster) => {
                cluster.refresh(deadline).await?;
                Ok(cluster.primaries())
            }
        }
    }

    /// The durability of the nodes that take writes.
    ///
    /// # Errors
    /// If one of them does not reply.
    pub(crate) async fn durability(&self, deadline: Instant) -> Result<DurabilityReport, BatchError> {
        let mut settings = Vec::new();
        for node in self.primaries(deadline).await? {
            settings.push(Settings::of(&node, deadline).await?);
        }
        Ok(DurabilityReport::of(&settings))
    }

    /// The version and role of each node that takes writes.
    ///
    /// # Errors
    /// If one of them does not reply.
    pub(crate) async fn server_infos(&self, deadline: Instant) -> Result<Vec<ServerInfo>, BatchError> {
        let mut infos = Vec::new();
        for node in self.primaries(deadline).await? {
            infos.push(ServerInfo::of(&node, deadline).await?);
        }
        Ok(infos)
    }

    /// Ensures that the user may wait for replicas on all nodes that take writes.
    ///
    /// # Errors
    /// If the user may not, or one of the nodes does not reply.
    pub(crate) async fn ensure_wait_allowed(&self, deadline: Instant) -> Result<(), BatchError> {
        for node in self.primaries(deadline).await? {
            server::ensure_wait_allowed(&node, deadline).await?;
        }
        Ok(())
    }

    fn all_nodes(&self) -> Vec<Arc<Node>> {
        match &self.nodes {
            Nodes::One(node) => vec![Arc::clone(node)],
            Nodes::Cluster(cluster) => cluster.all_nodes(),
        }
    }

    async fn run(&self, request: Request, is_idempotent: bool, deadline: Instant) -> Result<Value, BatchError> {
        match self.attempt(&request, None, deadline).await {
            AttemptOutcome::Done(value) => Ok(value),
            // Boxed, because this future is large and seldom needed.
            outcome => Box::pin(self.retry(outcome, request, is_idempotent, deadline)).await,
        }
    }

    /// Continues after the first attempt.
    async fn retry(
        &self,
        mut outcome: AttemptOutcome,
        request: Request,
        is_idempotent: bool,
        deadline: Instant,
    ) -> Result<Value, BatchError> {
        // Whether an earlier attempt may have been applied.
        let mut may_have_applied = false;
        let mut redirects = 0;
        let mut delay = BACKOFF;
        let mut last_error = None;
        loop {
            let mut redirect = None;
            match outcome {
                AttemptOutcome::Done(value) => return Ok(value),
                AttemptOutcome::Failed(error) => {
                    let may_have_applied = may_have_applied || error.may_have_applied();
                    return Err(error.with_may_have_applied(may_have_applied));
                }
                AttemptOutcome::Redirected(to) => {
                    redirects += 1;
                    if redirects <= MAX_REDIRECTS {
                        outcome = self.attempt(&request, Some(to), deadline).await;
                        continue;
                    }
                    redirect = Some(to);
                    redirects = 0;
                }
                AttemptOutcome::Wait(error) => last_error = Some(error),
                // D6
                AttemptOutcome::Lost(error) if !is_idempotent => return Err(error),
                AttemptOutcome::Lost(error) => {
                    may_have_applied = true;
                    last_error = Some(error);
                }
                AttemptOutcome::TimedOut { was_sent } => {
                    return Err(error::timed_out(self.timeout, may_have_applied || was_sent, last_error));
                }
            }
            // An attempt that expires in flight may have been applied. So the last attempt begins early enough to end.
            if Instant::now() + 2 * delay >= deadline {
                return Err(error::timed_out(self.timeout, may_have_applied, last_error));
            }
            sleep(delay).await;
            delay = (2 * delay).min(MAX_BACKOFF);
            if let (Nodes::Cluster(cluster), None) = (&self.nodes, &redirect) {
                // The slot may have another primary by now. If no node replies, the old slot map is used.
                let _ = tokio::time::timeout_at(deadline, cluster.refresh(deadline)).await;
            }
            outcome = self.attempt(&request, redirect, deadline).await;
        }
    }

    async fn attempt(&self, request: &Request, redirect: Option<Redirect>, deadline: Instant) -> AttemptOutcome {
        let (node, asking) = match (redirect, &self.nodes) {
            (Some(redirect), _) => (redirect.node, redirect.asking),
            (None, Nodes::One(node)) => (Arc::clone(node), false),
            (None, Nodes::Cluster(cluster)) => match cluster.primary_of(request.slot) {
                Some(node) => (node, false),
                None => {
                    return AttemptOutcome::Wait(BatchError::transient("no node of the cluster has the build's slot"));
                }
            },
        };
        let mut reply = self.send(&node, request, &request.cmd, asking, deadline).await;
        if let Err(SendError::Refused(error)) = &reply
            && error.code() == "NOSCRIPT"
            && let Some(cmd) = request.by_text()
        {
            reply = Box::pin(self.send(&node, request, &cmd, asking, deadline)).await;
        }
        match reply {
            Ok(value) => AttemptOutcome::Done(value),
            Err(SendError::NotSent(error)) if error.is_transient() => AttemptOutcome::Wait(error),
            Err(SendError::NotSent(error) | SendError::TooFewReplicas(error)) => AttemptOutcome::Failed(error),
            Err(SendError::Lost(error)) => AttemptOutcome::Lost(error),
            Err(SendError::TimedOut { was_sent }) => AttemptOutcome::TimedOut { was_sent },
            Err(SendError::Refused(error)) => self.after_refusal(&error, &node, request.slot),
        }
    }

    /// Sends a command and waits for its reply until the deadline. In a cluster, it also stops waiting when the node
    /// has lost its slots.
    ///
    /// A hung node loses all slots once its replica is promoted; stop waiting for it then. A node that is only
    /// migrating one slot still replies.
    async fn send(
        &self,
        node: &Node,
        request: &Request,
        cmd: &Cmd,
        asking: bool,
        deadline: Instant,
    ) -> Result<Value, SendError> {
        let channel = request.channel;
        let Nodes::Cluster(cluster) = &self.nodes else { return node.send(channel, cmd, deadline).await };
        let takeover = async {
            sleep(FAILOVER_CHECK_AFTER).await;
            Box::pin(cluster.wait_for_takeover(node, FAILOVER_CHECK_AFTER, deadline)).await;
        };
        tokio::pin!(takeover);
        let connection = match node.live_connection(channel) {
            Some(connection) => connection,
            None => tokio::select! {
                biased;
                connection = node.connection(channel, deadline) => connection?,
                () = &mut takeover, if !asking => return Err(SendError::NotSent(error::taken_over())),
            },
        };
        tokio::select! {
            biased;
            reply = node.send_on(&connection, channel, cmd, asking, deadline) => reply,
            () = takeover, if !asking => Err(SendError::Lost(error::taken_over().with_may_have_applied(true))),
        }
    }

    /// The outcome of an attempt that a server refused, so that nothing was applied.
    fn after_refusal(&self, error: &ServerError, node: &Node, slot: Slot) -> AttemptOutcome {
        let mapped = error::server_error(error);
        let Nodes::Cluster(cluster) = &self.nodes else {
            if error.code() == "READONLY" {
                // The host name may belong to another server after a failover.
                node.disconnect();
            }
            return if mapped.is_transient() { AttemptOutcome::Wait(mapped) } else { AttemptOutcome::Failed(mapped) };
        };
        match error.code() {
            code @ ("MOVED" | "ASK") => {
                // The details are the slot and the address of another node.
                let address = error.details().and_then(|details| details.split_ascii_whitespace().nth(1));
                match address.and_then(|address| Address::from_redirect(address, &node.address)) {
                    Some(address) => {
                        let target = cluster.node_at(address);
                        if code == "MOVED" {
                            cluster.set_primary(slot, Arc::clone(&target));
                        }
                        AttemptOutcome::Redirected(Redirect { node: target, asking: code == "ASK" })
                    }
                    None => {
                        let message = "a node of the cluster does not know the address of the build's primary";
                        AttemptOutcome::Wait(BatchError::transient(message))
                    }
                }
            }
            // The node has been demoted to a replica.
            "READONLY" => {
                AttemptOutcome::Wait(BatchError::transient("the build's part of the cluster has another primary now"))
            }
            _ if mapped.is_transient() => AttemptOutcome::Wait(mapped),
            _ => AttemptOutcome::Failed(mapped),
        }
    }
}
