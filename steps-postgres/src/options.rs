use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use percent_encoding::percent_decode_str;
use sqlx::{ConnectOptions, postgres::PgConnectOptions};
use steps_batch::clamp_timeout;
use steps_core::{Clock, OpenMode, Result, SystemClock, UrlParameters};

use crate::{BACKEND, error::config};

/// The options of a [`PostgresStore`](crate::PostgresStore).
#[derive(Clone)]
pub struct PostgresOptions {
    pub(crate) connect: PgConnectOptions,
    pub(crate) schema: String,
    mode: Option<OpenMode>,
    pub(crate) synchronous_commit: SynchronousCommit,
    pub(crate) pooler: Pooler,
    pub(crate) caches_statements: bool,
    pub(crate) writers: usize,
    pub(crate) readers: usize,
    pub(crate) timeout: Duration,
    pub(crate) clock: Arc<dyn Clock>,
}

/// The durability of an acknowledged write: PostgreSQL's `synchronous_commit`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum SynchronousCommit {
    /// As [`On`](Self::On), and readers on the synchronous standbys see the write: `synchronous_commit=remote_apply`.
    RemoteApply,
    /// The write survives the death of the server and of its machine, and of the synchronous standbys, if there are
    /// any: `synchronous_commit=on`, the default.
    On,
    /// The write survives the death of the server and of its machine. The synchronous standbys have it in memory:
    /// `synchronous_commit=remote_write`.
    RemoteWrite,
    /// The write survives the death of the server and of its machine. The server does not wait for standbys:
    /// `synchronous_commit=local`.
    Local,
    /// The write survives the death of the store's process. The death of the server may lose the last writes:
    /// `synchronous_commit=off`.
    Off,
}

impl SynchronousCommit {
    const ALL: [Self; 5] = [Self::RemoteApply, Self::On, Self::RemoteWrite, Self::Local, Self::Off];

    pub(crate) const fn setting(self) -> &'static str {
        match self {
            Self::RemoteApply => "remote_apply",
            Self::On => "on",
            Self::RemoteWrite => "remote_write",
            Self::Local => "local",
            Self::Off => "off",
        }
    }

    fn from_setting(setting: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.setting() == setting)
    }
}

/// The connection pooler between the store and the server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Pooler {
    /// No pooler, or one that gives each connection its own session: `pooler=none`, the default.
    None,
    /// PgBouncer in transaction mode, or a similar pooler: `pooler=transaction`. The store then relies on no state of a
    /// session, which costs three more round trips a batch.
    Transaction,
}

impl Pooler {
    fn from_name(name: &str) -> Option<Self> {
        match name {
            "none" => Some(Self::None),
            "transaction" => Some(Self::Transaction),
            _ => None,
        }
    }
}

/// The parameters that sqlx accepts in a URL, besides `options[NAME]`.
const DRIVER_PARAMETERS: [&str; 18] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

/// The maximum number of connections for writes, and for reads.
const MAX_CONNECTIONS: usize = 64;

impl PostgresOptions {
    /// Parses `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, with the parameters of sqlx (`sslmode`, `sslrootcert`,
    /// `sslcert`, `sslkey`, `host`, `hostaddr`, `port`, `dbname`, `user`, `password`, `application_name`, `options`,
    /// `options[NAME]`, `statement-cache-capacity`) and four more:
    /// - `schema=NAME`: see [`with_schema`](Self::with_schema);
    /// - `mode=rwc|rw|ro`: see [`OpenMode`];
    /// - `synchronous_commit=remote_apply|on|remote_write|local|off`: see [`SynchronousCommit`];
    /// - `pooler=none|transaction`: see [`Pooler`].
    ///
    /// The environment variables of PostgreSQL, such as `PGHOST` and `PGPASSWORD`, are the defaults for parts that the
    /// URL leaves out.
    ///
    /// ```
    /// use steps_postgres::PostgresOptions;
    ///
    /// PostgresOptions::from_url("postgres://ci@db.example.org/ci?schema=steps_staging")?;
    /// assert!(PostgresOptions::from_url("postgres://ci@db.example.org/ci?color=red").is_err());
    /// # Ok::<(), steps_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Config`](steps_core::ErrorKind::Config) for any other URL. The message shows no value of the URL.
    pub fn from_url(url: &str) -> Result<Self> {
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(config("invalid URL: it begins with neither postgres:// nor postgresql://"));
        }
        if url.contains('#') {
            return Err(config("invalid URL: it contains a \"#\"; write %23 instead"));
        }
        let (server, query) = url.split_once('?').unwrap_or((url, ""));
        // Checked before any part of the URL is shown: after a password with a "/" or a "?", its start looks like a host
        // with a port, and its rest like a database or a parameter.
        if has_login_after_authority(url) {
            return Err(config(INVALID_URL));
        }
        connect_options(server)?;
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let (driver_pairs, own_pairs): (Vec<&str>, Vec<&str>) = pairs.partition(|pair| is_driver_parameter(pair));
        let driver_query = driver_pairs.join("&");
        let mut driver_parameters = UrlParameters::parse(BACKEND, &driver_query)?;
        let mut parameters = UrlParameters::parse(BACKEND, &own_pairs.join("&"))?;
        for pair in driver_pairs {
            // Parsed one by one, to name the wrong one. The driver's error may show the value, so it is not passed on.
            PgConnectOptions::from_str(&format!("postgres:///?{pair}")).map_err(|_| {
                config(format!("invalid `{}` in the URL: the driver refuses the value", known_name(pair)))
            })?;
        }

        let mut options = Self::new(connect_options(&format!("{server}?{driver_query}"))?);
        let capacity = driver_parameters.take("statement-cache-capacity", "a number", |value| value.parse().ok())?;
        options.caches_statements = capacity != Some(0_usize);
        if let Some(schema) = parameters.take("schema", "a name", |value| Some(value.to_owned()))? {
            options = options.with_schema(schema)?;
        }
        options.mode = parameters.take("mode", OpenMode::EXPECTED, |value| value.parse().ok())?;
        let expected = "remote_apply, on, remote_write, local or off";
        if let Some(setting) = parameters.take("synchronous_commit", expected, SynchronousCommit::from_setting)? {
            options.synchronous_commit = setting;
        }
        if let Some(pooler) = parameters.take("pooler", "none or transaction", Pooler::from_name)? {
            options.pooler = pooler;
        }
        for name in DRIVER_PARAMETERS {
            // Not among these parameters: this only lists the name in the message about an unknown parameter.
            parameters.take(name, "", |_| Some(()))?;
        }
        parameters.finish()?;
        Ok(options)
    }

    fn new(connect: PgConnectOptions) -> Self {
        let connect = match connect.get_application_name() {
            Some(_) => connect,
            None => connect.application_name("steps"),
        };
        Self {
            // A pooler refuses unknown parameters at the start of a session, and the store reads no floats.
            connect: connect.extra_float_digits(None).disable_statement_logging(),
            schema: "steps".to_owned(),
            mode: None,
            synchronous_commit: SynchronousCommit::On,
            pooler: Pooler::None,
            caches_statements: true,
            writers: 1,
            readers: 2,
            timeout: Duration::from_secs(10),
            clock: Arc::new(SystemClock),
        }
    }

    pub(crate) fn mode(&self) -> OpenMode {
        self.mode.unwrap_or(OpenMode::Create)
    }

    /// Sets the mode, unless the URL has one.
    pub(crate) fn with_default_mode(mut self, mode: OpenMode) -> Self {
        self.mode.get_or_insert(mode);
        self
    }

    /// Sets the schema of the database that has the data; by default `steps`. The store creates it if it is missing and
    /// the [mode](Self::with_mode) allows that. Nothing else should be in the schema.
    ///
    /// # Errors
    /// [`Config`](steps_core::ErrorKind::Config) for a name that is empty, longer than 63 bytes or contains a NUL.
    pub fn with_schema(mut self, schema: impl Into<String>) -> Result<Self> {
        self.schema = schema.into();
        if self.schema.is_empty() || self.schema.len() > 63 || self.schema.contains('\0') {
            return Err(config("invalid name of the schema: expected 1 to 63 bytes without a NUL"));
        }
        Ok(self)
    }

    /// Sets whether the store may create, migrate and write the schema; by default [`OpenMode::Create`].
    #[must_use]
    pub fn with_mode(mut self, mode: OpenMode) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Sets the durability of an acknowledged write (D1).
    #[must_use]
    pub fn with_synchronous_commit(mut self, synchronous_commit: SynchronousCommit) -> Self {
        self.synchronous_commit = synchronous_commit;
        self
    }

    /// Sets the pooler between the store and the server.
    #[must_use]
    pub fn with_pooler(mut self, pooler: Pooler) -> Self {
        self.pooler = pooler;
        self
    }

    /// Sets the number of connections that write and that read, each from 1 to 64; by default 1 and 2.
    ///
    /// A few are enough, since a batch carries all pending requests of its connection. A second writing connection pays
    /// if the server has idle cores and a hundred callers write at once. The store opens one more connection while it
    /// connects or describes itself.
    #[must_use]
    pub fn with_connections(mut self, writers: usize, readers: usize) -> Self {
        self.writers = writers.clamp(1, MAX_CONNECTIONS);
        self.readers = readers.clamp(1, MAX_CONNECTIONS);
        self
    }

    /// Sets the time-out of a call, queueing included (D4); by default 10 s, at most a year.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = clamp_timeout(timeout);
        self
    }

    /// Sets the clock (L4).
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The location of the data, without user and password.
    pub(crate) fn location(&self) -> String {
        let host = match self.connect.get_socket() {
            Some(socket) => socket.to_string_lossy(),
            None => self.connect.get_host().into(),
        };
        let database = self.connect.get_database().unwrap_or(self.connect.get_username());
        format!("{host}:{}/{database}, schema {}", self.connect.get_port(), self.schema)
    }
}

/// Omits the password.
impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOptions")
            .field("location", &self.location())
            .field("mode", &self.mode())
            .field("synchronous_commit", &self.synchronous_commit)
            .field("pooler", &self.pooler)
            .field("writers", &self.writers)
            .field("readers", &self.readers)
            .field("timeout", &self.timeout)
            .field("clock", &self.clock)
            .finish_non_exhaustive()
    }
}

/// Parses a URL with the driver. Its error may show a value of the URL, so it is not passed on.
fn connect_options(url: &str) -> Result<PgConnectOptions> {
    PgConnectOptions::from_str(url).map_err(|_| config(INVALID_URL))
}

const INVALID_URL: &str =
    "invalid URL: expected postgres://USER:PASSWORD@HOST:PORT/DATABASE, with special characters written as %XX";

/// Whether the URL has an `@` after the host, where it must be written as `%40`.
fn has_login_after_authority(url: &str) -> bool {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    rest.split_once(['/', '\\', '?']).is_some_and(|(_, after)| after.contains('@'))
}

/// Whether a `name=value` pair of the URL is a parameter of the driver.
fn is_driver_parameter(pair: &str) -> bool {
    let name = parameter_name(pair);
    let is_setting = name.strip_prefix("options[").is_some_and(|rest| rest.ends_with(']'));
    is_setting || DRIVER_PARAMETERS.contains(&name.as_str())
}

/// The name of a parameter of the driver, without the part that the URL chooses.
fn known_name(pair: &str) -> &'static str {
    let name = parameter_name(pair);
    DRIVER_PARAMETERS.into_iter().find(|known| *known == name).unwrap_or("options[…]")
}

/// The decoded name of a `name=value` pair.
fn parameter_name(pair: &str) -> String {
    let (name, _) = pair.split_once('=').unwrap_or((pair, ""));
    percent_decode_str(&name.replace('+', " ")).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(url: &str) -> String {
        let error = PostgresOptions::from_url(url).unwrap_err();
        assert_eq!(error.kind(), steps_core::ErrorKind::Config, "{url}");
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("secret"), "{shown}");
        shown
    }

    #[test]
    fn a_url_has_the_parameters_of_the_driver_and_ours() {
        let options = PostgresOptions::from_url(
            "postgresql://ci:secret@db:1234/ci?sslmode=disable&options[geqo]=off&schema=a+b%22&application_name=x\
             &synchronous_commit=off&pooler=transaction&statement-cache-capacity=0",
        )
        .unwrap();
        assert_eq!(options.schema, "a b\"");
        assert_eq!(options.synchronous_commit, SynchronousCommit::Off);
        assert_eq!(options.pooler, Pooler::Transaction);
        assert!(!options.caches_statements);
        assert_eq!(options.connect.get_application_name(), Some("x"));
        assert_eq!(options.connect.get_options(), Some("-c geqo=off"));
        assert_eq!(options.location(), "db:1234/ci, schema a b\"");
        assert!(!format!("{options:?}").contains("secret"));
    }

    #[test]
    fn an_invalid_url_is_refused_and_no_value_shown() {
        for (url, said) in [
            ("postgres://ci@db/ci?pasword=secret", "unknown parameter \"pasword\" in the URL: expected schema, mode, "),
            ("postgres://ci@db/ci?pasword=secret", "application_name or options"),
            ("postgres://ci@db/ci?options[=secret", "unknown parameter"),
            ("postgres://ci@db/ci?sslmode=secret", "invalid `sslmode` in the URL: the driver refuses the value"),
            ("postgres://ci@db/ci?port=secret", "invalid `port` in the URL"),
            ("postgres://ci@db/ci?hostaddr=secret", "invalid `hostaddr` in the URL"),
            ("postgres://ci@db/ci?mode=secret", "invalid `mode` in the URL: expected rwc, rw or ro"),
            ("postgres://ci@db/ci?pooler=secret", "invalid `pooler` in the URL: expected none or transaction"),
            ("postgres://ci@db/ci?synchronous_commit=secret", "expected remote_apply, on, remote_write, local or off"),
            ("postgres://ci@db/ci?schema=", "1 to 63 bytes"),
            ("postgres://ci@db/ci?options=%ff", "expected UTF-8"),
            ("postgres://ci:secret@db:port/ci", "special characters written as %XX"),
            ("postgres://ci:sec?secret=ret@db/ci", "special characters written as %XX"),
            ("postgres://ci:42?secret=x@db/ci", "special characters written as %XX"),
            ("postgres://ci:42?application_name=secret@db/ci", "special characters written as %XX"),
            ("postgres://ci:42/secret@db/ci", "special characters written as %XX"),
            ("postgres://ci:4@2?secret@db/ci", "special characters written as %XX"),
            ("postgres://ci:sec#ret@db/ci", "%23"),
            ("postgres:ci", "begins with neither"),
        ] {
            let shown = refusal(url);
            assert!(shown.contains(said), "{url}: {shown}");
        }
    }

    #[test]
    fn the_numbers_of_connections_have_bounds() {
        let options = PostgresOptions::from_url("postgres://db/ci").unwrap().with_connections(0, usize::MAX);
        assert_eq!((options.writers, options.readers), (1, 64));
    }
}
