//! Buildbot as the other system: its own connector, in a process of its own, on a database beside the store's.

use std::{path::Path, process::Stdio};

use serde::de::DeserializeOwned;
use serde_json::Value;
use sqlx::{Connection, Executor, PgConnection};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use super::places::{Backend, Place, beside};

/// The process. It ends with this value.
pub struct Buildbot {
    _process: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Buildbot {
    /// Starts it with a Python interpreter that has Buildbot. Gives `None` for a backend that Buildbot has not.
    pub async fn start(python: &Path, backend: Backend, place: &Place) -> Option<Self> {
        let url = match backend {
            Backend::Sqlite => format!("sqlite:///{}", beside(place.url(), "buildbot.db").display()),
            Backend::Postgres => database(place.url()).await,
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
        println!("beside {}", buildbot.answer().await);
        Some(buildbot)
    }

    /// Has it carry out an order: see `connector.py`.
    pub async fn carry_out<T: DeserializeOwned>(&mut self, order: Value) -> T {
        self.orders.write_all(format!("{order}\n").as_bytes()).await.expect("Buildbot's process listens");
        serde_json::from_str(&self.answer().await).expect("it answers with figures")
    }

    async fn answer(&mut self) -> String {
        let answer = self.answers.next_line().await.expect("Buildbot's process can be read from");
        answer.expect("Buildbot's process answers; what it said is above").to_owned()
    }
}

/// A fresh database on the server, and its URL for SQLAlchemy.
async fn database(url: &str) -> String {
    let mut connection = PgConnection::connect(url).await.expect("the server can be reached");
    connection.execute("CREATE DATABASE buildbot").await.expect("a database is made for Buildbot");
    let (_, server) = url.split_once("://").expect("it is a URL");
    let (server, _) = server.rsplit_once('/').expect("its last part is a database");
    format!("postgresql+psycopg2://{server}/buildbot")
}
