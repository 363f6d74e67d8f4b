//! The second process: this program again, which runs the same rounds at the same time.

use std::{env, process::Stdio};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines, stdin},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::{bench, round::Round, support::locations::Backend};

#[derive(Deserialize, Serialize)]
struct Order {
    side: String,
    round: Round,
}

/// The second process, as a handle in the first. The drop kills it.
pub(crate) struct Peer {
    _process: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Peer {
    pub(crate) async fn start(backend: Backend, urls: &[String]) -> Self {
        let mut process = Command::new(env::current_exe().expect("this program has a path"))
            .arg(backend.to_string())
            .args(urls.iter().map(|url| format!("--peer-at={url}")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the second process starts");
        let orders = process.stdin.take().expect("it is a pipe");
        let answers = BufReader::new(process.stdout.take().expect("it is a pipe")).lines();
        let mut peer = Self { _process: process, orders, answers };
        peer.wait().await;
        peer
    }

    pub(crate) async fn prepare(&mut self, side: &str, round: &Round) {
        let order = Order { side: side.to_owned(), round: *round };
        self.write(&serde_json::to_string(&order).expect("an order is written as JSON")).await;
        self.wait().await;
    }

    pub(crate) async fn go(&mut self) {
        self.write("go").await;
    }

    /// Waits until the second process has executed the order.
    pub(crate) async fn wait(&mut self) {
        let answer = self.answers.next_line().await.expect("the second process answers");
        assert_eq!(answer.as_deref(), Some("done"), "the second process failed");
    }

    async fn write(&mut self, line: &str) {
        self.orders.write_all(format!("{line}\n").as_bytes()).await.expect("the second process listens");
    }
}

/// Runs as the second process until the first closes its standard input.
pub(crate) async fn serve(backend: Backend, urls: &[String]) {
    let bench = bench::open(backend, urls, false).await;
    println!("done");
    let mut orders = BufReader::new(stdin()).lines();
    while let Ok(Some(order)) = orders.next_line().await {
        let order: Order = serde_json::from_str(&order).expect("it is an order");
        let prepared = bench.prepare(&order.side, &order.round);
        println!("done");
        if !matches!(orders.next_line().await, Ok(Some(_))) {
            return;
        }
        prepared.run().await;
        println!("done");
    }
}
