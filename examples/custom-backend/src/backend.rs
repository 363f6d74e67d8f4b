use std::{path::Path, sync::Arc};

use steps_core::{
    Backend, Call, ConnectOptions, Description, Error, ErrorKind, Operation, Result, StepsStore, SystemClock,
    UrlParameters, async_trait,
};

use crate::{BACKEND, RedbFile, RedbStore, TIMEOUT};

/// Connects `redb:PATH` to the file with that path.
#[derive(Clone, Copy, Debug, Default)]
pub struct RedbBackend;

/// The path in a URL.
fn path(url: &str) -> Result<&str> {
    let rest = url.strip_prefix("redb:").unwrap_or_default();
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    // This backend has no parameters. One with parameters calls `take` for each of them here.
    UrlParameters::parse(BACKEND, query)?.finish()?;
    if path.is_empty() || path.contains('%') {
        // The message does not show the URL, which may hold a password for another backend (D3).
        let error = Error::new(ErrorKind::Config, "invalid URL: expected redb:PATH, without percent codes");
        return Err(error.with_call(Call::on_store(Operation::Connect)).with_backend(BACKEND));
    }
    Ok(path)
}

async fn open(url: &str, options: &ConnectOptions) -> Result<RedbStore> {
    let timeout = options.timeout.unwrap_or(TIMEOUT);
    let clock = options.clock.clone().unwrap_or_else(|| Arc::new(SystemClock));
    Ok(RedbStore::with_options(RedbFile::open(path(url)?, timeout).await?, clock, timeout))
}

#[async_trait]
impl Backend for RedbBackend {
    fn schemes(&self) -> &'static [&'static str] {
        &["redb"]
    }

    async fn connect(&self, url: &str, options: &ConnectOptions) -> Result<Arc<dyn StepsStore>> {
        Ok(Arc::new(open(url, options).await?))
    }

    async fn describe(&self, url: &str, options: &ConnectOptions) -> Result<Description> {
        open(url, options).await?.close().await?;
        let mut description = Description::new(BACKEND, path(url)?, "format 1, redb 4");
        description.promises.push("An answered write survives the death of the process and of the machine.".into());
        Ok(description)
    }

    fn absolute_url(&self, url: &str, folder: &Path) -> String {
        path(url).map_or_else(|_| url.to_owned(), |path| format!("redb:{}", folder.join(path).display()))
    }
}
