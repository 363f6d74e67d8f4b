//! Buildbot for comparison: its own database connector in a separate process, on a database next to the store's.

use std::{path::Path, process::Stdio};

use serde::de::DeserializeOwned;
use serde_json::Value;
use sqlx::{Connection, Executor, PgConnection};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use super::locations::{Backend, Location, sibling_file};

/// The process with Buildbot's connector. The drop kills it.
pub struct Buildbot {
    _process: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Buildbot {
    /// Starts the process with a Python interpreter that has Buildbot. Returns `None` for a backend that Buildbot
    /// does not support.
    pub async fn start(python: &Path, backend: Backend, location: &Location) -> Option<Self> {
        let url = match backend {
            Backend::Sqlite => format!("sqlite:///{}", sibling_file(location.url(), "buildbot.db").display()),
            Backend::Postgres => database(location.url()).await,
            _ => return None,
        };
        let mut process = Command::new(python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/buildbot/connector.py"))
            .arg(url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the Python interpreter starts");
        let orders = process.stdin.take().expect("it is a pipe");
        let answers = BufReader::new(process.stdout.take().expect("it is a pipe")).lines();
        let mut buildbot = Self { _process: process, orders, answers };
        println!("compared with {}", buildbot.answer().await);
        Some(buildbot)
    }

    /// Executes an order: see `connector.py`.
    pub async fn execute<T: DeserializeOwned>(&mut self, order: Value) -> T {
        self.orders.write_all(format!("{order}\n").as_bytes()).await.expect("Buildbot's process listens");
        serde_json::from_str(&self.answer().await).expect("Buildbot's process answers with figures")
    }

    async fn answer(&mut self) -> String {
        let answer = self.answers.next_line().await.expect("Buildbot's process can be read from");
        answer.expect("Buildbot's process answers; its error is printed above").to_owned()
    }
}

/// Creates a database on the server and returns its URL for SQLAlchemy.
async fn database(url: &str) -> String {
    let mut connection = PgConnection::connect(url).await.expect("the server can be reached");
    connection.execute("CREATE DATABASE buildbot").await.expect("a database is made for Buildbot");
    let (_, server) = url.split_once("://").expect("it is a URL");
    let (host, _) = server.rsplit_once('/').expect("its last part is a database");
    format!("postgresql+psycopg2://{host}/buildbot")
}
