use std::sync::Arc;

use async_trait::async_trait;
use steps_core::{Backend, Call, ConnectOptions, Description, Error, ErrorKind, Operation, Result, StepsStore, SystemClock};

use crate::{BACKEND, RedbFile, RedbStore, TIMEOUT};

/// Connects `redb:PATH` to the file at that path.
#[derive(Clone, Copy, Debug, Default)]
pub struct RedbBackend;

async fn open(url: &str, options: &ConnectOptions) -> Result<RedbStore> {
    let path = url.strip_prefix("redb:").filter(|path| !path.is_empty() && !path.contains(['?', '%']));
    let path = path.ok_or_else(|| {
        // The URL may hold a password that was meant for another backend: no message shows it (D3).
        Error::new(ErrorKind::Config, "write the URL as redb:PATH, without parameters and codes")
            .with_call(Call::on_store(Operation::Connect))
            .with_backend(BACKEND)
    })?;
    let timeout = options.timeout.unwrap_or(TIMEOUT);
    let clock = options.clock.clone().unwrap_or_else(|| Arc::new(SystemClock));
    Ok(RedbStore::with_options(RedbFile::open(path, timeout).await?, clock, timeout))
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
        let mut description = Description::new(BACKEND, url.trim_start_matches("redb:"), "format 1, redb 4");
        description.promises.push("An answered write survives the death of the process and of the machine.".into());
        Ok(description)
    }
}
