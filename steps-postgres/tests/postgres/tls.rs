//! Encrypted connections.

use libtest_mimic::Trial;
use steps_core::ErrorKind;
use test_servers::{TestResult, trial};

use crate::connect;

#[cfg(feature = "tls")]
pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("tls::only_a_server_with_a_trusted_certificate_is_used", certificates)]
}

#[cfg(not(feature = "tls"))]
pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("tls::an_error_without_the_feature_names_it", not_compiled_in)]
}

#[cfg(not(feature = "tls"))]
async fn not_compiled_in() -> TestResult {
    let schema = test_servers::shared_postgres()?;
    for mode in ["require", "verify-ca", "verify-full"] {
        let error = connect(&format!("{}&sslmode={mode}", schema.url_with_schema())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("feature `tls`"), "{error}");
    }
    Ok(())
}

#[cfg(feature = "tls")]
async fn certificates() -> TestResult {
    use std::fs;

    use sqlx::{Connection, PgConnection};
    use steps_core::{StepsStore, StepsStoreExt};
    use test_servers::Authority;

    let trusted = Authority::new()?;
    let unknown = Authority::new()?;
    let (certificate, key) = trusted.certify("localhost")?;
    let options = test_servers::PostgresOptions::default().with_tls(certificate, key);
    let server = options.start()?;
    let folder = tempfile::tempdir()?;
    let trusted_path = folder.path().join("trusted.crt");
    let unknown_path = folder.path().join("unknown.crt");
    fs::write(&trusted_path, trusted.certificate())?;
    fs::write(&unknown_path, unknown.certificate())?;
    let trusted = trusted_path.display();
    let unknown = unknown_path.display();

    // The certificate is for this name, and not for the server's address.
    let by_name = format!("postgres://postgres@localhost:{}/postgres", server.port());
    for (url, parameters) in [
        (&by_name, format!("sslmode=verify-full&sslrootcert={trusted}")),
        (&server.url(), format!("sslmode=verify-ca&sslrootcert={trusted}")),
        (&server.url(), "sslmode=require".to_owned()),
        (&server.url(), "sslmode=prefer".to_owned()),
    ] {
        let store = connect(&format!("{url}?{parameters}&application_name=encrypted")).await?;
        store.add(7, "compile", "").await?;
        let mut driver = PgConnection::connect(&server.url()).await?;
        let encrypted = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                         WHERE application_name = 'encrypted'";
        assert!(sqlx::query_scalar::<_, bool>(encrypted).fetch_one(&mut driver).await?, "{parameters}");
        store.close().await?;
    }
    for (url, parameters) in [
        (&by_name, format!("sslmode=verify-full&sslrootcert={unknown}")),
        (&by_name, "sslmode=verify-full".to_owned()),
        (&server.url(), format!("sslmode=verify-full&sslrootcert={trusted}")),
        (&server.url(), format!("sslmode=verify-ca&sslrootcert={unknown}")),
    ] {
        let error = connect(&format!("{url}?{parameters}")).await.expect_err(&parameters);
        assert_eq!(error.kind(), ErrorKind::Config, "{parameters}: {error}");
        assert!(error.to_string().contains("certificates"), "{error}");
    }

    let plain = test_servers::shared_postgres()?;
    let error = connect(&format!("{}&sslmode=require", plain.url_with_schema())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    Ok(())
}
