use std::{
    env,
    hash::{BuildHasher, RandomState},
    io,
    str::FromStr,
    sync::OnceLock,
    thread,
};

use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, postgres::PgConnectOptions};

use crate::{Postgres, PostgresOptions};

/// Environment variable with the URL of a PostgreSQL database to use instead of a private server. The user must be
/// allowed to create schemas in it.
pub const POSTGRES_URL: &str = "STEPS_TEST_POSTGRES_URL";

static SERVER: OnceLock<Result<Server, String>> = OnceLock::new();

enum Server {
    Private(Box<Postgres>),
    Given(String),
}

/// A fresh schema on the PostgreSQL that all tests of this process share: a private server, or the one in
/// [`POSTGRES_URL`].
///
/// # Errors
/// When the private server does not start.
pub fn shared_postgres() -> io::Result<Schema> {
    let server = SERVER.get_or_init(|| match env::var(POSTGRES_URL) {
        Ok(url) => Ok(Server::Given(url)),
        Err(_) => PostgresOptions::default()
            .start()
            .map(|server| Server::Private(Box::new(server)))
            .map_err(|error| error.to_string()),
    });
    let (url, is_dropped) = match server.as_ref().map_err(|error| io::Error::other(error.as_str()))? {
        Server::Private(server) => (server.url(), false),
        Server::Given(url) => (url.clone(), true),
    };
    Ok(Schema { url, name: fresh_name(), is_dropped })
}

/// A random name, since tests of several processes may use one server concurrently.
pub(crate) fn fresh_name() -> String {
    format!("steps_test_{:016x}", RandomState::new().hash_one(0))
}

/// The name of an unused schema. Dropping the value drops the schema, unless the server is private.
#[derive(Debug)]
pub struct Schema {
    url: String,
    name: String,
    /// Whether drop must drop the schema. The schemas of a private server vanish with the server.
    is_dropped: bool,
}

impl Schema {
    /// The URL of the server and database.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The name of the schema, which does not exist yet.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The URL of the database with a parameter `schema`.
    #[must_use]
    pub fn url_with_schema(&self) -> String {
        let separator = if self.url.contains('?') { '&' } else { '?' };
        format!("{}{separator}schema={}", self.url, self.name)
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        if !self.is_dropped {
            return;
        }
        let url = self.url.clone();
        let name = self.name.clone();
        // A new thread, since this may be called in the runtime of a test, where another runtime cannot block.
        let dropped = thread::spawn(move || -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                // Poolers reject start-up parameters that they do not know, such as extra_float_digits.
                let options = PgConnectOptions::from_str(&url)?.extra_float_digits(None);
                let mut connection = options.connect().await?;
                // The name comes from fresh_name and needs no quotes.
                connection.execute(AssertSqlSafe(format!("DROP SCHEMA IF EXISTS {name} CASCADE"))).await?;
                connection.close().await
            })?;
            Ok(())
        });
        if let Ok(Err(error)) = dropped.join() {
            eprintln!("the schema {} was not dropped: {error}", self.name);
        }
    }
}
