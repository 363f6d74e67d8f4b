//! Sends each call to the node that has its build, and again where that is right, until its time is up.

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
    error,
    node::{Address, Lane, NoAnswer, Node},
    options::RedisOptions,
    script::Code,
    server::{self, Keeping, Program, Settings},
};

/// How long the first pause is before something is tried again, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));

/// When a node of a cluster has not answered for so long, the cluster is asked whether another has taken over from it.
const PATIENCE: Duration = Duration::from_secs(1);

/// A call that was redirected more often without a pause waits before it goes on: two nodes may send it to and fro.
const REDIRECTS: u32 = 5;

/// What a store asks the servers through.
#[derive(Debug)]
pub(crate) struct Client {
    nodes: Nodes,
    timeout: Duration,
    /// Whether writes wait for replicas.
    waits: bool,
    /// The runtime of the store: all calls and connections are tasks of it.
    runtime: Handle,
    /// Closed when the runtime is gone.
    life: mpsc::Sender<()>,
    /// The calls that have not ended.
    calls: TaskTracker,
}

#[derive(Debug)]
enum Nodes {
    One(Arc<Node>),
    Cluster(Box<Cluster>),
}

/// One command about one key, or one script about the keys of one build.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    cmd: Cmd,
    script: Option<&'static Code>,
    slot: Slot,
    lane: Lane,
}

impl Request {
    pub(crate) fn command(name: &str, key: &str) -> Self {
        let mut cmd = redis::cmd(name);
        cmd.arg(key);
        Self { cmd, script: None, slot: Slot::for_key(key), lane: Lane::Calls }
    }

    pub(crate) fn script(script: &'static Code, keys: &[&str]) -> Self {
        let mut cmd = script.by_hash();
        cmd.arg(keys.len()).arg(keys);
        let slot = Slot::for_key(keys.first().copied().unwrap_or_default());
        Self { cmd, script: Some(script), slot, lane: Lane::Calls }
    }

    pub(crate) fn arg(mut self, arg: impl redis::ToRedisArgs) -> Self {
        self.cmd.arg(arg);
        self
    }

    /// Its answer may be long, and does not hold up others.
    pub(crate) fn on_a_lane_of_its_own(mut self) -> Self {
        self.lane = Lane::Builds;
        self
    }

    /// The script itself, where the server does not know it by its hash.
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

/// What becomes of a call after it was sent once.
enum Next {
    Done(Value),
    Failed(BatchError),
    /// Nothing was applied, and another node knows more.
    Redirected(Redirect),
    /// Nothing was applied, and it may be better soon.
    Wait(BatchError),
    /// It may have been applied.
    Lost(BatchError),
    TimedOut {
        sent: bool,
    },
}

struct Redirect {
    node: Arc<Node>,
    asking: bool,
}

impl Client {
    /// A client of the current runtime. Nothing is connected yet.
    pub(crate) fn new(options: Arc<RedisOptions>) -> Self {
        let runtime = Handle::current();
        let (life, mut until_it_ends) = mpsc::channel(1);
        runtime.spawn(async move { until_it_ends.recv().await });
        let (timeout, waits) = (options.timeout, options.replicas > 0);
        let nodes = match (options.is_cluster, options.nodes.first()) {
            (false, Some(address)) => Nodes::One(Arc::new(Node::new(address.clone(), options))),
            _ => Nodes::Cluster(Box::new(Cluster::new(options))),
        };
        Self { nodes, timeout, waits, runtime, life, calls: TaskTracker::new() }
    }

    /// Makes the first connection.
    ///
    /// # Errors
    /// What keeps it from being made: a server that is not there is an error at once, one that starts is one
    /// to [wait for](BatchError::is_transient).
    pub(crate) async fn connect(&self, deadline: Instant) -> Result<(), BatchError> {
        match &self.nodes {
            Nodes::One(node) => {
                node.connect().await.map_err(error::at_first_sight)?;
                server::is_alone(node, deadline).await
            }
            Nodes::Cluster(cluster) => {
                cluster.connect().await.map_err(error::at_first_sight)?;
                cluster.refresh(deadline).await
            }
        }
    }

    /// Carries out a request. A caller that waits outside the store's runtime has it done by a task of that, which has
    /// the timers and connections (D5).
    ///
    /// # Errors
    /// What the server gives; `Unavailable` when the time is up or the runtime ends, `Closed` when the store is.
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
        let waits = self.waits && call.operation().is_write();
        if waits {
            request.lane = Lane::Writes;
        }
        let is_idempotent = call.is_idempotent();
        // A write that waits for replicas has a turn, which others wait for: it must go on when its caller does not.
        if self.is_at_home() && !waits {
            let _token = self.begin(call)?;
            let answer = self.run(request, is_idempotent, deadline).await;
            return answer.map_err(|failure| failure.into_error(call, BACKEND));
        }
        let client = Arc::clone(self);
        Box::pin(self.task(call, async move { client.run(request, is_idempotent, deadline).await })).await
    }

    /// Does what a call is about, unless the store is closed, and on the store's runtime.
    ///
    /// # Errors
    /// What the work gives; `Unavailable` when the runtime ends, `Closed` when the store is.
    pub(crate) async fn work<T: Send + 'static>(
        &self,
        call: Call,
        work: impl Future<Output = Result<T, BatchError>> + Send + 'static,
    ) -> Result<T> {
        if !self.is_at_home() {
            return self.task(call, work).await;
        }
        let _token = self.begin(call)?;
        work.await.map_err(|failure| failure.into_error(call, BACKEND))
    }

    /// The same, in a task of its own.
    ///
    /// # Errors
    /// As `work`.
    async fn task<T: Send + 'static>(
        &self,
        call: Call,
        work: impl Future<Output = Result<T, BatchError>> + Send + 'static,
    ) -> Result<T> {
        let token = self.begin(call)?;
        let task = self.runtime.spawn(async move {
            let _token = token;
            work.await
        });
        let answer = task.await.unwrap_or_else(|_| {
            let failure = BatchError::new(ErrorKind::Unavailable, "the runtime that the store ran on is gone");
            Err(failure.with_may_have_applied(true))
        });
        answer.map_err(|failure| failure.into_error(call, BACKEND))
    }

    /// Notes that a call has begun.
    ///
    /// # Errors
    /// `Closed` when the store is, or its runtime has ended.
    fn begin(&self, call: Call) -> Result<TaskTrackerToken> {
        let token = self.calls.token();
        if self.calls.is_closed() || self.life.is_closed() {
            return Err(Error::closed(call).with_backend(BACKEND));
        }
        Ok(token)
    }

    /// Whether the caller waits within the store's runtime.
    fn is_at_home(&self) -> bool {
        Handle::try_current().is_ok_and(|current| current.id() == self.runtime.id())
    }

    /// Lets the calls end that have begun, and then the connections (D7).
    ///
    /// # Errors
    /// When that takes longer than the time-out.
    pub(crate) async fn close(self: &Arc<Self>) -> Result<(), BatchError> {
        self.calls.close();
        let client = Arc::clone(self);
        let task = self.runtime.spawn(async move {
            let ended = tokio::time::timeout(client.timeout, client.calls.wait()).await;
            client.all_nodes().iter().for_each(|node| node.disconnect());
            ended.map_err(|_| error::timed_out(client.timeout, false, None))
        });
        // A runtime that is gone has taken all with it.
        task.await.unwrap_or(Ok(()))
    }

    /// The nodes that take writes, as the cluster says now.
    ///
    /// # Errors
    /// When no node of the cluster answers.
    pub(crate) async fn primaries(&self, deadline: Instant) -> Result<Vec<Arc<Node>>, BatchError> {
        match &self.nodes {
            Nodes::One(node) => Ok(vec![Arc::clone(node)]),
            Nodes::Cluster(cluster) => {
                cluster.refresh(deadline).await?;
                Ok(cluster.primaries())
            }
        }
    }

    /// What the nodes that take writes keep, all together.
    ///
    /// # Errors
    /// When one does not answer.
    pub(crate) async fn keeping(&self, deadline: Instant) -> Result<Keeping, BatchError> {
        let mut settings = Vec::new();
        for node in self.primaries(deadline).await? {
            settings.push(Settings::of(&node, deadline).await?);
        }
        Ok(Keeping::of(&settings))
    }

    /// What the nodes that take writes are.
    ///
    /// # Errors
    /// When one does not answer.
    pub(crate) async fn programs(&self, deadline: Instant) -> Result<Vec<Program>, BatchError> {
        let mut programs = Vec::new();
        for node in self.primaries(deadline).await? {
            programs.push(Program::of(&node, deadline).await?);
        }
        Ok(programs)
    }

    /// Whether the user may wait for replicas, and what that comes to now.
    ///
    /// # Errors
    /// When the user may not, or a node does not answer.
    pub(crate) async fn waiting(&self, deadline: Instant) -> Result<Vec<Program>, BatchError> {
        for node in self.primaries(deadline).await? {
            server::may_wait(&node, deadline).await?;
        }
        self.programs(deadline).await
    }

    fn all_nodes(&self) -> Vec<Arc<Node>> {
        match &self.nodes {
            Nodes::One(node) => vec![Arc::clone(node)],
            Nodes::Cluster(cluster) => cluster.all(),
        }
    }

    async fn run(&self, request: Request, is_idempotent: bool, deadline: Instant) -> Result<Value, BatchError> {
        match self.send(&request, None, deadline).await {
            Next::Done(value) => Ok(value),
            // Seldom, and large: it has memory of its own, so that all other calls do with little.
            next => Box::pin(self.go_on(next, request, is_idempotent, deadline)).await,
        }
    }

    /// Goes on after the first try.
    async fn go_on(
        &self,
        mut next: Next,
        request: Request,
        is_idempotent: bool,
        deadline: Instant,
    ) -> Result<Value, BatchError> {
        // Whether one of the tries so far may have been applied.
        let mut may_have_applied = false;
        let mut redirects = 0;
        let mut pause = PAUSES.0;
        let mut obstacle = None;
        loop {
            let mut redirect = None;
            match next {
                Next::Done(value) => return Ok(value),
                Next::Failed(failure) => {
                    let may_have_applied = may_have_applied || failure.may_have_applied();
                    return Err(failure.with_may_have_applied(may_have_applied));
                }
                Next::Redirected(to) => {
                    redirects += 1;
                    if redirects <= REDIRECTS {
                        next = self.send(&request, Some(to), deadline).await;
                        continue;
                    }
                    redirect = Some(to);
                    redirects = 0;
                }
                Next::Wait(failure) => obstacle = Some(failure),
                // D6
                Next::Lost(failure) if !is_idempotent => return Err(failure),
                Next::Lost(failure) => {
                    may_have_applied = true;
                    obstacle = Some(failure);
                }
                Next::TimedOut { sent } => {
                    return Err(error::timed_out(self.timeout, may_have_applied || sent, obstacle));
                }
            }
            // A try that is cut off may have been applied, where none would have been certain: it has time for itself.
            if Instant::now() + 2 * pause >= deadline {
                return Err(error::timed_out(self.timeout, may_have_applied, obstacle));
            }
            sleep(pause).await;
            pause = (2 * pause).min(PAUSES.1);
            if let (Nodes::Cluster(cluster), None) = (&self.nodes, &redirect) {
                // Whoever has the slot now; without an answer it is tried where it was.
                let _ = tokio::time::timeout_at(deadline, cluster.refresh(deadline)).await;
            }
            next = self.send(&request, redirect, deadline).await;
        }
    }

    async fn send(&self, request: &Request, redirect: Option<Redirect>, deadline: Instant) -> Next {
        let (node, asking) = match (redirect, &self.nodes) {
            (Some(redirect), _) => (redirect.node, redirect.asking),
            (None, Nodes::One(node)) => (Arc::clone(node), false),
            (None, Nodes::Cluster(cluster)) => match cluster.node_of(request.slot) {
                Some(node) => (node, false),
                None => return Next::Wait(BatchError::transient("no node of the cluster has the build's slot")),
            },
        };
        let mut answer = self.answer(&node, request, &request.cmd, asking, deadline).await;
        if let Err(NoAnswer::Refused(error)) = &answer
            && error.code() == "NOSCRIPT"
            && let Some(cmd) = request.by_text()
        {
            answer = Box::pin(self.answer(&node, request, &cmd, asking, deadline)).await;
        }
        match answer {
            Ok(value) => Next::Done(value),
            Err(NoAnswer::NotSent(failure)) if failure.is_transient() => Next::Wait(failure),
            Err(NoAnswer::NotSent(failure)) => Next::Failed(failure),
            Err(NoAnswer::TooFewReplicas(failure)) => Next::Failed(failure),
            Err(NoAnswer::Lost(failure)) => Next::Lost(failure),
            Err(NoAnswer::TimedOut { sent }) => Next::TimedOut { sent },
            Err(NoAnswer::Refused(error)) => self.refused(&error, &node, request.slot),
        }
    }

    /// Sends a command and waits for its answer: as long as there is time, and in a cluster as long as the node has slots.
    /// One that hangs has none once its replica has taken over, and would let its callers wait in vain; one whose slot
    /// moves to another still answers.
    async fn answer(
        &self,
        node: &Node,
        request: &Request,
        cmd: &Cmd,
        asking: bool,
        deadline: Instant,
    ) -> Result<Value, NoAnswer> {
        let lane = request.lane;
        let Nodes::Cluster(cluster) = &self.nodes else { return node.send(lane, cmd, deadline).await };
        let taken_over = async {
            sleep(PATIENCE).await;
            Box::pin(cluster.taken_over(node, PATIENCE, deadline)).await;
        };
        tokio::pin!(taken_over);
        let connection = match node.living(lane) {
            Some(connection) => connection,
            None => tokio::select! {
                biased;
                connection = node.connected(lane, deadline) => connection?,
                () = &mut taken_over, if !asking => return Err(NoAnswer::NotSent(error::taken_over())),
            },
        };
        tokio::select! {
            biased;
            answer = node.send_on(connection, lane, cmd, asking, deadline) => answer,
            () = taken_over, if !asking => Err(NoAnswer::Lost(error::taken_over().with_may_have_applied(true))),
        }
    }

    /// What to do when the server refused a request: nothing of it was applied.
    fn refused(&self, error: &ServerError, by: &Node, slot: Slot) -> Next {
        let failure = error::from_server(error);
        let Nodes::Cluster(cluster) = &self.nodes else {
            if error.code() == "READONLY" {
                // Another server may have its name by now.
                by.disconnect();
            }
            return if failure.is_transient() { Next::Wait(failure) } else { Next::Failed(failure) };
        };
        match error.code() {
            code @ ("MOVED" | "ASK") => {
                // The slot, and the node that knows more.
                let address = error.details().and_then(|details| details.split_ascii_whitespace().nth(1));
                match address.and_then(|address| Address::from_redirect(address, &by.address)) {
                    Some(address) => {
                        let node = cluster.node_at(address);
                        if code == "MOVED" {
                            cluster.moved(slot, Arc::clone(&node));
                        }
                        Next::Redirected(Redirect { node, asking: code == "ASK" })
                    }
                    None => Next::Wait(BatchError::transient("a node of the cluster does not know who has the build")),
                }
            }
            // The node was the slot's primary, and is another's replica since.
            "READONLY" => Next::Wait(BatchError::transient("the build's part of the cluster has another primary now")),
            _ if failure.is_transient() => Next::Wait(failure),
            _ => Next::Failed(failure),
        }
    }
}
