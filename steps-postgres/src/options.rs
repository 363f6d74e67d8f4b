use std::{borrow::Cow, fmt, str::FromStr, sync::Arc, time::Duration};

use percent_encoding::percent_decode_str;
use sqlx::{ConnectOptions, postgres::PgConnectOptions};
use steps_batch::clamp_timeout;
use steps_core::OpenMode;
use steps_core::{Clock, Result, SystemClock};

use crate::error;

/// Where a [`PostgresStore`](crate::PostgresStore) keeps its data, and how.
#[derive(Clone)]
pub struct PostgresOptions {
    pub(crate) connect: PgConnectOptions,
    pub(crate) schema: String,
    pub(crate) mode: OpenMode,
    pub(crate) synchronous_commit: SynchronousCommit,
    pub(crate) pooler: Pooler,
    pub(crate) caches_statements: bool,
    pub(crate) writers: usize,
    pub(crate) readers: usize,
    pub(crate) timeout: Duration,
    pub(crate) clock: Arc<dyn Clock>,
}

/// What an answered write survives: PostgreSQL's `synchronous_commit`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum SynchronousCommit {
    /// As [`On`](Self::On), and synchronous standbys show it to readers: `synchronous_commit=remote_apply`.
    RemoteApply,
    /// The death of the server and of its machine, and of those of the synchronous standbys, if there are any:
    /// `synchronous_commit=on`, the default.
    On,
    /// The death of the server and of its machine; synchronous standbys have it in memory:
    /// `synchronous_commit=remote_write`.
    RemoteWrite,
    /// The death of the server and of its machine; no standby is waited for: `synchronous_commit=local`.
    Local,
    /// The death of the store's process; that of the server may take the last of them: `synchronous_commit=off`.
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
}

/// What stands between the store and the server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Pooler {
    /// Nothing, or what gives each connection a session of its own: the default.
    None,
    /// PgBouncer in transaction mode, or its like: `pooler=transaction`. Nothing is kept between transactions,
    /// which costs three more round trips a batch.
    Transaction,
}

/// What sqlx takes in a URL, but for `options[NAME]`.
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

/// The greatest number of lanes of a kind.
const MOST_LANES: usize = 64;

impl PostgresOptions {
    /// The options that a URL names: `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, with the parameters that
    /// sqlx takes (`sslmode`, `sslrootcert`, `sslcert`, `sslkey`, `host`, `hostaddr`, `port`, `dbname`, `user`, `password`,
    /// `application_name`, `options`, `options[NAME]`, `statement-cache-capacity`), and four more:
    /// - `schema=NAME`: see [`with_schema`](Self::with_schema);
    /// - `mode=rwc|rw|ro`: see [`OpenMode`];
    /// - `synchronous_commit=remote_apply|on|remote_write|local|off`: see [`SynchronousCommit`];
    /// - `pooler=none|transaction`: see [`Pooler`].
    ///
    /// What the URL does not say is taken from the environment variables of PostgreSQL, such as `PGHOST` and
    /// `PGPASSWORD`.
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
    /// [`Config`](steps_core::ErrorKind::Config) for any other URL. No value of it is shown.
    pub fn from_url(url: &str) -> Result<Self> {
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(error::config("a URL of PostgreSQL begins with \"postgres://\""));
        }
        if url.contains('#') {
            return Err(error::config("the URL has a \"#\"; write it as %23"));
        }
        let (server, parameters) = url.split_once('?').unwrap_or((url, ""));
        // Before a name of a parameter is shown: behind a "?" in a password stands the rest of it. The driver's
        // error may show a value.
        let connect = |url: &str| {
            PgConnectOptions::from_str(url).map_err(|_| {
                error::config(
                    "the URL cannot be read; write postgres://USER:PASSWORD@HOST:PORT/DATABASE, with \
                               %XX for what is special in them",
                )
            })
        };
        connect(server)?;
        let (mut ours, mut of_driver) = (Vec::new(), Vec::new());
        for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            if DRIVER_PARAMETERS.contains(&&*name)
                || name.strip_prefix("options[").is_some_and(|rest| rest.ends_with(']'))
            {
                if PgConnectOptions::from_str(&format!("postgres:///?{parameter}")).is_err() {
                    return Err(error::config(format!("the URL's parameter {name:?} has a value that it cannot have")));
                }
                of_driver.push((parameter, name, value));
            } else {
                ours.push((name, value));
            }
        }
        let driver_url = of_driver.iter().fold(format!("{server}?"), |url, (parameter, ..)| url + parameter + "&");
        let mut options = Self::new(connect(&driver_url)?);
        options.caches_statements =
            !of_driver.iter().any(|(_, name, value)| name == "statement-cache-capacity" && value.parse() == Ok(0));
        ours.into_iter().try_fold(options, |options, (name, value)| options.with_parameter(&name, &value))
    }

    fn new(connect: PgConnectOptions) -> Self {
        let connect = match connect.get_application_name() {
            Some(_) => connect,
            None => connect.application_name("steps"),
        };
        Self {
            // A pooler refuses what it does not know at the start of a session, and floats there are none.
            connect: connect.extra_float_digits(None).disable_statement_logging(),
            schema: "steps".to_owned(),
            mode: OpenMode::Create,
            synchronous_commit: SynchronousCommit::On,
            pooler: Pooler::None,
            caches_statements: true,
            writers: 1,
            readers: 2,
            timeout: Duration::from_secs(10),
            clock: Arc::new(SystemClock),
        }
    }

    fn with_parameter(self, name: &str, value: &str) -> Result<Self> {
        match (name, value) {
            ("schema", schema) => self.with_schema(schema),
            ("mode", value) => value
                .parse()
                .map(|mode| self.with_mode(mode))
                .map_err(|_| error::config("invalid `mode` in the URL: expected rwc, rw or ro")),
            ("pooler", "none") => Ok(self.with_pooler(Pooler::None)),
            ("pooler", "transaction") => Ok(self.with_pooler(Pooler::Transaction)),
            ("pooler", _) => Err(error::config("the URL's pooler is none or transaction")),
            ("synchronous_commit", value) => {
                let known = SynchronousCommit::ALL.into_iter().find(|known| known.setting() == value);
                known.map(|known| self.with_synchronous_commit(known)).ok_or_else(|| {
                    error::config("the URL's synchronous_commit is remote_apply, on, remote_write, local or off")
                })
            }
            // The value may be a password.
            _ => Err(error::config(format!(
                "the URL's parameter {name:?} is unknown; use schema, mode, synchronous_commit, pooler, or one of the \
                 driver's: {}",
                DRIVER_PARAMETERS.join(", ")
            ))),
        }
    }

    /// Keeps the data in this schema of the database, `steps` unless set. It is made where it is missing, if the
    /// [mode](Self::with_mode) allows it; nothing else should be in it.
    ///
    /// # Errors
    /// [`Config`](steps_core::ErrorKind::Config) when it is empty, longer than 63 bytes or has a NUL.
    pub fn with_schema(mut self, schema: impl Into<String>) -> Result<Self> {
        self.schema = schema.into();
        if self.schema.is_empty() || self.schema.len() > 63 || self.schema.contains('\0') {
            return Err(error::config("the name of a schema has 1 to 63 bytes, and no NUL"));
        }
        Ok(self)
    }

    /// Says what may be done with the schema: [`OpenMode::Create`] unless set.
    #[must_use]
    pub fn with_mode(mut self, mode: OpenMode) -> Self {
        self.mode = mode;
        self
    }

    /// Says what an answered write survives (D1).
    #[must_use]
    pub fn with_synchronous_commit(mut self, synchronous_commit: SynchronousCommit) -> Self {
        self.synchronous_commit = synchronous_commit;
        self
    }

    /// Says what stands between the store and the server.
    #[must_use]
    pub fn with_pooler(mut self, pooler: Pooler) -> Self {
        self.pooler = pooler;
        self
    }

    /// Uses this many connections to write and to read, each from 1 to 64; 1 and 2 unless set.
    ///
    /// Few do well, since each carries all that waits for it at once: a second one to write pays where the server has cores
    /// to spare and a hundred callers write at once. A store never has more, but for one while
    /// it connects or is asked about itself.
    #[must_use]
    pub fn with_lanes(mut self, writers: usize, readers: usize) -> Self {
        self.writers = writers.clamp(1, MOST_LANES);
        self.readers = readers.clamp(1, MOST_LANES);
        self
    }

    /// Lets no call take longer than this, queueing included (D4); 10 s unless set, a year at most.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = clamp_timeout(timeout);
        self
    }

    /// Takes the time from this clock (L4).
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Where it is, without user and password.
    pub(crate) fn location(&self) -> String {
        let host = self.connect.get_socket().map_or(self.connect.get_host().into(), |socket| socket.to_string_lossy());
        let database = self.connect.get_database().unwrap_or(self.connect.get_username());
        format!("{host}:{}/{database}, schema {}", self.connect.get_port(), self.schema)
    }
}

/// Without the password.
impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOptions")
            .field("location", &self.location())
            .field("mode", &self.mode)
            .field("synchronous_commit", &self.synchronous_commit)
            .field("pooler", &self.pooler)
            .field("writers", &self.writers)
            .field("readers", &self.readers)
            .field("timeout", &self.timeout)
            .field("clock", &self.clock)
            .finish_non_exhaustive()
    }
}

/// As the driver decodes names and values of parameters: `+` is a blank.
fn decode(text: &str) -> Result<String> {
    let text: Cow<'_, str> = if text.contains('+') { text.replace('+', " ").into() } else { text.into() };
    match percent_decode_str(&text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(error::config("a parameter of the URL is not UTF-8")),
    }
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
    fn what_it_does_not_know_is_refused_and_no_value_shown() {
        for (url, said) in [
            ("postgres://ci@db/ci?pasword=secret", "\"pasword\" is unknown"),
            ("postgres://ci@db/ci?sslmode=secret", "\"sslmode\" has a value"),
            ("postgres://ci@db/ci?port=secret", "\"port\" has a value"),
            ("postgres://ci@db/ci?hostaddr=secret", "\"hostaddr\" has a value"),
            ("postgres://ci@db/ci?mode=secret", "rwc, rw or ro"),
            ("postgres://ci@db/ci?pooler=secret", "none or transaction"),
            ("postgres://ci@db/ci?synchronous_commit=secret", "remote_apply"),
            ("postgres://ci@db/ci?schema=", "1 to 63 bytes"),
            ("postgres://ci@db/ci?options=%ff", "not UTF-8"),
            ("postgres://ci:secret@db:port/ci", "cannot be read"),
            ("postgres://ci:sec?secret=ret@db/ci", "cannot be read"),
            ("postgres://ci:sec#ret@db/ci", "%23"),
            ("postgres:ci", "begins with"),
        ] {
            let shown = refusal(url);
            assert!(shown.contains(said), "{url}: {shown}");
        }
    }

    #[test]
    fn lanes_have_bounds() {
        let options = PostgresOptions::from_url("postgres://db/ci").unwrap().with_lanes(0, usize::MAX);
        assert_eq!((options.writers, options.readers), (1, 64));
    }
}
