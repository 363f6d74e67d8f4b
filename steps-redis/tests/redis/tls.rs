//! Encrypted connections.

use libtest_mimic::Trial;
use test_servers::{TestResult, trial};

/// The trial runs itself again with these variables in its environment: a process reads its trusted certificates once.
const URL: &str = "STEPS_TEST_TLS_URL";
const IS_TRUSTED: &str = "STEPS_TEST_TLS_IS_TRUSTED";

const NAME: &str = "tls::a_server_with_a_certificate_that_is_trusted_is_used_and_no_other";

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial(NAME, certificates)]
}

async fn certificates() -> TestResult {
    use std::{env, fs, net::TcpListener, process::Command};

    use test_servers::Authority;

    if let (Ok(url), Ok(is_trusted)) = (env::var(URL), env::var(IS_TRUSTED)) {
        return as_child(&url, is_trusted == "true").await;
    }
    let trusted = Authority::new()?;
    let untrusted = Authority::new()?;
    let (certificate, key) = trusted.certify("localhost")?;
    let folder = tempfile::tempdir()?;
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).map(|()| path.display().to_string())
    };
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let server = test_servers::RedisOptions::default()
        .with_setting("tls-port", port.to_string())
        .with_setting("tls-cert-file", file("server.crt", &certificate)?)
        .with_setting("tls-key-file", file("server.key", &key)?)
        .with_setting("tls-auth-clients", "no")
        .start()?;
    let trusted_file = file("trusted.crt", trusted.certificate())?;
    let untrusted_file = file("untrusted.crt", untrusted.certificate())?;
    // The certificate is for the name, not for the address. In the last case, the port is that of plain connections.
    for (url, authority, is_trusted) in [
        (format!("rediss://localhost:{port}"), &trusted_file, true),
        (format!("rediss://localhost:{port}"), &untrusted_file, false),
        (format!("rediss://127.0.0.1:{port}"), &trusted_file, false),
        (format!("rediss://localhost:{}", server.port()), &trusted_file, false),
    ] {
        let mut child = Command::new(env::current_exe()?);
        child.args(["--exact", NAME]).env("SSL_CERT_FILE", authority).env(URL, &url);
        let output = child.env(IS_TRUSTED, is_trusted.to_string()).output()?;
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && stdout.contains("1 passed"), "{url}: {stdout}");
    }
    Ok(())
}

async fn as_child(url: &str, is_trusted: bool) -> TestResult {
    use steps_core::{ErrorKind, StepsStore, StepsStoreExt};

    let store = match (crate::impatient(url).await, is_trusted) {
        (store, true) => store?,
        (Ok(_), false) => return Err("it was connected".into()),
        (Err(error), false) => {
            assert!(matches!(error.kind(), ErrorKind::Config | ErrorKind::Unavailable), "{error}");
            assert!(!error.may_have_applied());
            return Ok(());
        }
    };
    let step = store.add(7, "compile", "running").await?;
    for number in 0..5 {
        store.add_named_url(step.id, "log", number.to_string()).await?;
    }
    let step = store.step(step.id).await?.ok_or("the step exists")?;
    assert_eq!(step.urls.len(), 5);
    assert_eq!(store.steps(7).await?, [step]);
    assert_eq!(store.steps(8).await?, []);
    Ok(store.close().await?)
}
