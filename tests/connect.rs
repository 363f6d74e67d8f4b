//! Connecting by URL: the backend of each scheme, and the errors of URLs without a backend.

use steps::{Connector, Error, ErrorKind};

async fn refused(url: &str) -> Error {
    let error = steps::connect(url).await.expect_err("the URL has no backend");
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(!error.is_retryable() && !error.may_have_applied());
    error
}

#[tokio::test]
async fn an_unknown_scheme_is_refused_and_the_error_names_the_known_ones() {
    let message = refused("etcd://user:secret@host/").await.to_string();
    assert!(message.contains("\"etcd\"") && !message.contains("secret"), "{message}");
    for scheme in Connector::builtin().schemes() {
        assert!(message.contains(scheme), "{message}");
    }
}

#[tokio::test]
async fn a_url_without_a_scheme_is_refused() {
    for url in ["", "steps.db", "/var/lib/steps.db", "user:secret@host", "secret@host:5432"] {
        let message = refused(url).await.to_string();
        assert!(!message.contains("secret"), "{message}");
    }
    assert!(refused("steps.db").await.to_string().contains("has no scheme"));
}

#[cfg(not(feature = "sqlite"))]
#[tokio::test]
async fn a_backend_that_was_not_compiled_in_names_its_feature() {
    let message = refused("sqlite:steps.db").await.to_string();
    assert!(message.contains("enable the feature `sqlite`"), "{message}");
}

#[cfg(not(feature = "postgres"))]
#[tokio::test]
async fn a_server_that_was_not_compiled_in_names_its_feature() {
    for url in ["postgres://ci:secret@host/ci", "postgresql://ci:secret@host/ci"] {
        let message = refused(url).await.to_string();
        assert!(message.contains("enable the feature `postgres`") && !message.contains("secret"), "{message}");
    }
}

#[cfg(not(feature = "redis"))]
#[tokio::test]
async fn a_server_or_cluster_that_was_not_compiled_in_names_its_feature() {
    for scheme in ["redis", "rediss", "redis-cluster", "rediss-cluster"] {
        let message = refused(&format!("{scheme}://ci:secret@host")).await.to_string();
        assert!(message.contains("enable the feature `redis`") && !message.contains("secret"), "{message}");
    }
}

#[cfg(not(feature = "memory"))]
#[tokio::test]
async fn a_backend_that_was_not_compiled_in_names_its_feature_too() {
    let message = refused("memory:").await.to_string();
    assert!(message.contains("enable the feature `memory`"), "{message}");
}

#[cfg(feature = "memory")]
mod memory {
    use std::sync::Arc;

    use async_trait::async_trait;
    use steps::{
        Backend, ConnectOptions, Description, Durability, ManualClock, Result, Results, StepsStore, StepsStoreExt,
        Timestamp,
    };

    use super::*;

    #[tokio::test]
    async fn each_connect_makes_a_fresh_store() {
        let one = steps::connect("memory:").await.unwrap();
        let other = steps::connect("memory:").await.unwrap();
        one.add(7, "compile", "").await.unwrap();
        assert!(other.steps(7).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn nothing_may_follow_the_scheme() {
        refused("memory:here").await;
        refused("memory:?mode=ro").await;
    }

    #[tokio::test]
    async fn a_durability_that_it_cannot_keep_is_refused() {
        let options = ConnectOptions::new().with_durability(Durability::Process);
        let error = Connector::builtin().with_options(options).connect("memory:").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    }

    #[tokio::test]
    async fn the_options_set_the_clock() {
        let clock = Arc::new(ManualClock::new(Timestamp::MAX));
        let connector = Connector::builtin().with_options(ConnectOptions::new().with_clock(clock));
        let store = connector.connect("memory:").await.unwrap();
        let step = store.add(7, "compile", "").await.unwrap();
        store.finish(step.id, Results::SUCCESS).await.unwrap();
        assert_eq!(store.step(step.id).await.unwrap().unwrap().complete_at, Some(Timestamp::MAX));
    }

    /// A backend of an application: the one of memory, with a scheme of its own.
    #[derive(Debug)]
    struct Mine;

    #[async_trait]
    impl Backend for Mine {
        fn schemes(&self) -> &'static [&'static str] {
            &["mine"]
        }

        async fn connect(&self, url: &str, options: &ConnectOptions) -> Result<Arc<dyn StepsStore>> {
            assert_eq!(url, "mine://there");
            Connector::builtin().with_options(options.clone()).connect("memory:").await
        }

        async fn describe(&self, url: &str, _: &ConnectOptions) -> Result<Description> {
            Ok(Description::new("mine", url, "none"))
        }
    }

    #[tokio::test]
    async fn a_backend_of_the_application_is_known_only_to_its_connector() {
        let connector = Connector::builtin().with_backend(Mine);
        connector.connect("mine://there").await.unwrap().add(7, "compile", "").await.unwrap();
        assert_eq!(connector.describe("mine://there").await.unwrap().backend, "mine");
        refused("mine://there").await;
    }
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use std::time::Duration;

    use steps::{ConnectOptions, Durability, StepsStoreExt};

    use super::*;

    #[tokio::test]
    async fn a_path_is_relative_absolute_or_percent_encoded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        let written = steps::connect(&format!("sqlite://{path}/a%20b%3F.db")).await.unwrap();
        written.add(7, "compile", "").await.unwrap();
        assert!(folder.path().join("a b?.db").exists());
        for url in [format!("sqlite:{path}/a b%3f.db"), format!("sqlite://{path}/a%20b%3F.db?mode=ro&synchronous=full")]
        {
            assert_eq!(steps::connect(&url).await.unwrap().steps(7).await.unwrap().len(), 1, "{url}");
        }
    }

    #[tokio::test]
    async fn a_url_without_a_valid_path_is_refused() {
        for url in ["sqlite:", "sqlite://", "sqlite:?mode=rw", "sqlite::memory:", "sqlite:%00"] {
            refused(url).await;
        }
    }

    #[tokio::test]
    async fn an_unknown_parameter_is_refused_without_its_value() {
        let message = refused("sqlite:never.db?password=secret").await.to_string();
        assert!(message.contains("\"password\"") && !message.contains("secret"), "{message}");
        for parameters in ["mode=rwcx", "synchronous=off", "secret", "mode"] {
            let message = refused(&format!("sqlite:never.db?{parameters}")).await.to_string();
            assert!(!message.contains("secret"), "{message}");
        }
        assert!(!std::path::Path::new("never.db").exists());
    }

    #[tokio::test]
    async fn the_options_win_over_the_url() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/steps.db?synchronous=full", folder.path().display());
        let full = Connector::builtin().describe(&url).await.unwrap();
        assert!(full.warnings.is_empty() && full.promises.iter().any(|promise| promise.contains("machine")));
        let options = ConnectOptions::new().with_durability(Durability::Process);
        let normal = Connector::builtin().with_options(options).describe(&url).await.unwrap();
        assert!(normal.warnings.iter().any(|warning| warning.contains("machine")));
    }

    #[tokio::test]
    async fn the_options_set_the_timeout() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/steps.db", folder.path().display());
        let options = ConnectOptions::new().with_timeout(Duration::ZERO);
        let error = Connector::builtin().with_options(options).connect(&url).await.expect_err("the time-out is zero");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use std::time::Duration;

    use steps::{ConnectOptions, Durability, StepsStoreExt};

    use super::*;

    #[tokio::test]
    async fn the_options_win_over_the_url() {
        let schema = test_servers::shared_postgres().unwrap();
        let url = format!("{}&synchronous_commit=on", schema.url_with_schema());
        let other = test_servers::shared_postgres().unwrap();
        let options = ConnectOptions::new().with_durability(Durability::Process).with_namespace(other.name());
        let connector = Connector::builtin().with_options(options);
        let relaxed = connector.describe(&url).await.unwrap();
        assert!(relaxed.location.ends_with(other.name()), "{}", relaxed.location);
        assert!(relaxed.warnings.iter().any(|warning| warning.contains("synchronous_commit is off")));

        connector.connect(&url).await.unwrap().add(7, "compile", "").await.unwrap();
        assert_eq!(steps::connect(&other.url_with_schema()).await.unwrap().steps(7).await.unwrap().len(), 1);
        assert!(steps::connect(&url).await.unwrap().steps(7).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn an_unknown_parameter_is_refused_without_its_value() {
        for scheme in ["postgres", "postgresql"] {
            let message = refused(&format!("{scheme}://ci@127.0.0.1:1/ci?pasword=secret")).await.to_string();
            assert!(message.contains("\"pasword\"") && !message.contains("secret"), "{message}");
        }
    }

    #[tokio::test]
    async fn a_missing_server_is_unavailable_at_once() {
        let options = ConnectOptions::new().with_timeout(Duration::from_secs(60));
        let connector = Connector::builtin().with_options(options);
        let error = connector.connect("postgres://ci:secret@127.0.0.1:1/ci").await.expect_err("the port is closed");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.is_retryable() && !error.to_string().contains("secret"), "{error}");
    }
}

#[cfg(feature = "redis")]
mod redis {
    use std::time::Duration;

    use steps::{ConnectOptions, Durability, StepsStoreExt};

    use super::*;

    #[tokio::test]
    async fn the_options_win_over_the_url() {
        let redis = test_servers::shared_redis().unwrap();
        let other = test_servers::shared_redis().unwrap();
        let url = format!("{}&durability=required", redis.url_with_prefix());
        let options = ConnectOptions::new().with_durability(Durability::Process).with_namespace(other.prefix());
        let connector = Connector::builtin().with_options(options);
        let described = connector.describe(&url).await.unwrap();
        assert!(described.location.ends_with(other.prefix()), "{}", described.location);

        connector.connect(&url).await.unwrap().add(7, "compile", "").await.unwrap();
        assert_eq!(steps::connect(&other.url_with_prefix()).await.unwrap().steps(7).await.unwrap().len(), 1);
        assert!(steps::connect(&redis.url_with_prefix()).await.unwrap().steps(7).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn an_unknown_parameter_is_refused_without_its_value() {
        for scheme in ["redis", "redis-cluster"] {
            let message = refused(&format!("{scheme}://ci@127.0.0.1:1?pasword=secret")).await.to_string();
            assert!(message.contains("\"pasword\"") && !message.contains("secret"), "{message}");
        }
    }

    #[cfg(not(feature = "tls"))]
    #[tokio::test]
    async fn encryption_that_was_not_compiled_in_names_its_feature() {
        for scheme in ["rediss", "rediss-cluster"] {
            let message = refused(&format!("{scheme}://ci:secret@127.0.0.1:1")).await.to_string();
            assert!(message.contains("feature `tls`") && !message.contains("secret"), "{message}");
        }
    }

    #[tokio::test]
    async fn a_missing_server_is_unavailable_at_once() {
        for scheme in ["redis", "redis-cluster"] {
            let options = ConnectOptions::new().with_timeout(Duration::from_secs(60));
            let connector = Connector::builtin().with_options(options);
            let url = format!("{scheme}://ci:secret@127.0.0.1:1");
            let connecting = connector.connect(&url);
            let error = tokio::time::timeout(Duration::from_secs(30), connecting).await.unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            assert!(error.is_retryable() && !error.to_string().contains("secret"), "{error}");
        }
    }
}
