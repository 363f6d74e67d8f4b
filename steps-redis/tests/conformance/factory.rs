use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use conformance_tests::{BoxError, CaseContext, Feature, Fixture, Profile, StoreFactory};
use redis::Client;
use steps_core::{BuildId, Clock};
use steps_redis::{GREATEST_BUILD_ID, GREATEST_STEPS_A_BUILD, RedisOptions, RedisStore};
use test_servers::KeyPrefix;

/// Opens stores on one server or cluster, each with its own prefix.
pub(crate) struct Redis {
    pub(crate) name: &'static str,
    pub(crate) new_prefix: fn() -> io::Result<KeyPrefix>,
    /// Further parameters of the URL, each with a leading `&`.
    pub(crate) parameters: &'static str,
    pub(crate) is_cluster: bool,
}

#[async_trait]
impl StoreFactory for Redis {
    fn name(&self) -> &str {
        self.name
    }

    fn profile(&self) -> Profile {
        let mut profile = Profile::strict().with_steps_a_build(GREATEST_STEPS_A_BUILD);
        if self.is_cluster {
            let reason = "a cluster announces the same node addresses to all clients, so one proxy would serve all \
                          handles; tests/redis/cluster.rs tests faults";
            profile = profile.without(Feature::Faults, reason);
        }
        match BuildId::new(GREATEST_BUILD_ID) {
            Ok(id) => profile.with_greatest_build_id(id),
            Err(_) => profile,
        }
    }

    async fn create(&self, case: &CaseContext) -> Result<Fixture, BoxError> {
        let prefix = (self.new_prefix)()?;
        let url = format!("{}{}", prefix.url_with_prefix(), self.parameters);
        Ok(self.open(&url, case).await?.with_guard(prefix))
    }

    async fn open(&self, token: &str, case: &CaseContext) -> Result<Fixture, BoxError> {
        let url = Arc::<str>::from(token);
        let clock = case.clock();
        let open = {
            let url = Arc::clone(&url);
            let clock = clock.clone();
            move || connect(Arc::clone(&url), clock.clone(), None)
        };
        let fixture = Fixture::new(open().await?).with_reopen(open.clone()).with_peer(open).with_token(token);
        if self.is_cluster {
            return Ok(fixture);
        }
        let client = Client::open(token.split('?').next().unwrap_or_default())?;
        let server = client.get_connection_info().addr().to_string();
        let open_through = {
            let server = server.clone();
            move |proxy: SocketAddr, timeout| {
                connect(url.replacen(&server, &proxy.to_string(), 1).into(), clock.clone(), Some(timeout))
            }
        };
        Ok(fixture.with_faults(server, open_through))
    }
}

async fn connect(url: Arc<str>, clock: Arc<dyn Clock>, timeout: Option<Duration>) -> Result<RedisStore, BoxError> {
    let mut options = RedisOptions::from_url(&url)?.with_clock(clock);
    if let Some(timeout) = timeout {
        options = options.with_timeout(timeout);
    }
    Ok(RedisStore::connect(options).await?)
}
