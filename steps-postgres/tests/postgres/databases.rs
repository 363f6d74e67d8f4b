//! Databases in unexpected states: the store reports them, and leaves them unchanged.

use libtest_mimic::Trial;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use steps_core::{ErrorKind, StepsStore, StepsStoreExt};
use test_servers::{Schema, TestResult, shared_postgres, trial};

use crate::connect;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("databases::a_database_that_is_not_utf_8_is_refused", not_utf_8),
        trial("databases::a_missing_database_is_a_configuration_error", missing),
        trial("databases::a_newer_schema_is_refused", newer_schema),
        trial("databases::a_schema_of_another_program_is_left_as_it_is", foreign_schema),
        trial("databases::a_schema_of_any_name_is_used", odd_names),
        trial("databases::a_user_needs_no_right_but_on_the_schema", few_rights),
        trial("databases::writes_of_a_user_with_read_rights_are_refused", only_reading),
        trial("databases::a_mode_limits_creation_and_migration", modes),
        trial("databases::a_stricter_isolation_of_the_database_does_no_harm", stricter_isolation),
        trial("databases::a_step_that_cannot_be_read_back_is_corrupt_and_spoils_no_other", damaged_step),
        trial("databases::a_build_without_a_number_left_refuses_a_step", no_number_left),
        trial("databases::an_id_is_not_used_again_after_its_step_was_deleted", deleted_step),
        trial("databases::a_build_whose_steps_were_deleted_counts_from_zero", emptied_build),
        trial("databases::adds_of_one_batch_are_numbered_for_each_build", builds_of_one_batch),
        trial("databases::a_store_without_sessions_leaves_no_transaction_open", pooler),
    ]
}

/// A connection of the driver, with the schema in its search path, for statements that the store never sends.
pub(crate) async fn driver(schema: &Schema) -> sqlx::Result<PgConnection> {
    let mut connection = PgConnection::connect(schema.url()).await?;
    execute(&mut connection, format!("SET search_path = {}", schema.name())).await?;
    Ok(connection)
}

async fn execute(connection: &mut PgConnection, sql: String) -> sqlx::Result<()> {
    connection.execute(AssertSqlSafe(sql)).await.map(|_| ())
}

/// The URL of another user or database on the same server.
fn url_of(schema: &Schema, user: Option<&str>, database: Option<&str>) -> String {
    let mut url = schema.url_with_schema();
    for (name, value) in [("user", user), ("dbname", database)] {
        if let Some(value) = value {
            url += &format!("&{name}={value}");
        }
    }
    url
}

async fn not_utf_8() -> TestResult {
    let schema = shared_postgres()?;
    let mut driver = driver(&schema).await?;
    let database = format!("{}_ascii", schema.name());
    execute(&mut driver, format!("CREATE DATABASE {database} ENCODING 'SQL_ASCII' TEMPLATE template0 LOCALE 'C'"))
        .await?;
    let error = connect(&url_of(&schema, None, Some(&database))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("SQL_ASCII"), "{error}");
    execute(&mut driver, format!("DROP DATABASE {database} WITH (FORCE)")).await?;
    Ok(())
}

async fn missing() -> TestResult {
    let schema = shared_postgres()?;
    let error = connect(&url_of(&schema, None, Some("not_there"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("no such database"), "{error}");
    Ok(())
}

async fn newer_schema() -> TestResult {
    let schema = shared_postgres()?;
    connect(&schema.url_with_schema()).await?.close().await?;
    let mut driver = driver(&schema).await?;
    driver.execute("INSERT INTO steps_migrations (version, description) VALUES (1000, 'later')").await?;
    let error = connect(&schema.url_with_schema()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("use a newer program"), "{error}");
    Ok(())
}

async fn foreign_schema() -> TestResult {
    let schema = shared_postgres()?;
    let mut driver = driver(&schema).await?;
    execute(&mut driver, format!("CREATE SCHEMA {}", schema.name())).await?;
    driver.execute("CREATE TABLE steps (id INTEGER PRIMARY KEY, number INTEGER, name TEXT, buildid INTEGER)").await?;
    let error = connect(&schema.url_with_schema()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("another program"), "{error}");
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()";
    assert_eq!(sqlx::query_scalar::<_, i64>(tables).fetch_one(&mut driver).await?, 1);
    Ok(())
}

async fn odd_names() -> TestResult {
    let schema = shared_postgres()?;
    let mut driver = driver(&schema).await?;
    for (encoded, quoted) in [("a%22b%20%5C'c", r#""a""b \'c""#), ("SELECT", r#""SELECT""#), ("%C3%BC", "\"ü\"")] {
        let url = format!("{}&schema={encoded}", schema.url_with_schema());
        connect(&url).await?.add(7, "compile", "").await?;
        assert_eq!(connect(&url).await?.steps(7).await?.len(), 1, "{quoted}");
        execute(&mut driver, format!("DROP SCHEMA {quoted} CASCADE")).await?;
    }
    let error = connect(&format!("{}&schema=pg_steps", schema.url_with_schema())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    Ok(())
}

/// Creates a user with these rights on the schema, and returns its name.
async fn user(schema: &Schema, rights: &str) -> sqlx::Result<String> {
    let mut driver = driver(schema).await?;
    let user = format!("user_of_{}", schema.name());
    execute(&mut driver, format!("CREATE USER {user}; CREATE SCHEMA IF NOT EXISTS {}", schema.name())).await?;
    execute(&mut driver, rights.replace("SCHEMA", &format!("SCHEMA {}", schema.name())).replace("USER", &user)).await?;
    Ok(user)
}

async fn few_rights() -> TestResult {
    let schema = shared_postgres()?;
    let user = user(&schema, "GRANT USAGE, CREATE ON SCHEMA TO USER").await?;
    let store = connect(&url_of(&schema, Some(&user), None)).await?;
    let step = store.add(7, "compile", "").await?.id;
    store.add_named_url(step, "log", "").await?;
    store.close().await?;

    // Without the right to create tables in the schema, and without any right on it.
    for rights in ["REVOKE CREATE ON SCHEMA FROM USER", "REVOKE ALL ON SCHEMA FROM USER"] {
        let other = shared_postgres()?;
        let user = self::user(&other, rights).await?;
        let error = connect(&url_of(&other, Some(&user), None)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
        let mut driver = driver(&other).await?;
        execute(&mut driver, format!("DROP SCHEMA {} CASCADE", other.name())).await?;
        let error = connect(&url_of(&other, Some(&user), None)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
        execute(&mut driver, format!("DROP USER {user}")).await?;
    }
    let mut driver = driver(&schema).await?;
    execute(&mut driver, format!("DROP OWNED BY {user} CASCADE; DROP USER {user}")).await?;
    Ok(())
}

async fn only_reading() -> TestResult {
    let schema = shared_postgres()?;
    let writer = connect(&schema.url_with_schema()).await?;
    let step = writer.add(7, "compile", "").await?.id;
    let user = user(&schema, "GRANT USAGE ON SCHEMA TO USER; GRANT SELECT ON ALL TABLES IN SCHEMA TO USER").await?;
    let reader = connect(&url_of(&schema, Some(&user), None)).await?;
    let read_only = connect(&format!("{}&options[default_transaction_read_only]=on", schema.url_with_schema())).await?;
    for store in [reader, read_only] {
        assert_eq!(store.steps(7).await?.len(), 1);
        for error in
            [store.add(7, "test", "").await.unwrap_err(), store.add_named_url(step, "log", "").await.unwrap_err()]
        {
            assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
            assert!(!error.may_have_applied());
        }
    }
    assert_eq!(writer.steps(7).await?.len(), 1);
    let mut driver = driver(&schema).await?;
    execute(&mut driver, format!("DROP OWNED BY {user} CASCADE; DROP USER {user}")).await?;
    Ok(())
}

async fn modes() -> TestResult {
    let schema = shared_postgres()?;
    let url = |mode: &str| format!("{}&mode={mode}", schema.url_with_schema());
    let reading = url("ro");
    let writing = url("rw");
    for url in [&reading, &writing] {
        let error = connect(url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().contains(schema.name()), "{error}");
    }
    let mut driver = PgConnection::connect(schema.url()).await?;
    let exists = sqlx::query_scalar::<_, bool>("SELECT EXISTS (SELECT FROM pg_tables WHERE schemaname = $1)");
    assert!(!exists.bind(schema.name()).fetch_one(&mut driver).await?);

    let step = connect(&url("rwc")).await?.add(7, "compile", "").await?.id;
    connect(&writing).await?.add(7, "test", "").await?;
    for pooler in ["none", "transaction"] {
        let store = connect(&format!("{reading}&pooler={pooler}")).await?;
        assert_eq!(store.steps(7).await?.len(), 2);
        assert_eq!(store.step(step).await?.map(|step| step.id), Some(step));
        for error in
            [store.add(7, "test", "").await.unwrap_err(), store.add_named_url(step, "log", "").await.unwrap_err()]
        {
            assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
            assert!(!error.may_have_applied());
        }
    }

    // The state that an older version of this program would leave.
    execute(&mut driver, format!("DELETE FROM {}.steps_migrations WHERE version = 2", schema.name())).await?;
    let error = connect(&reading).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("older"), "{error}");
    Ok(())
}

async fn stricter_isolation() -> TestResult {
    let schema = shared_postgres()?;
    for pooler in ["none", "transaction"] {
        let url =
            format!("{}&pooler={pooler}&options[default_transaction_isolation]=serializable", schema.url_with_schema());
        let one = connect(&url).await?;
        let other = connect(&url).await?;
        for _ in 0..20 {
            let (one, other) = tokio::join!(one.add(7, "compile", ""), other.add(7, "compile", ""));
            assert_ne!(one?.number, other?.number);
        }
    }
    Ok(())
}

async fn damaged_step() -> TestResult {
    let schema = shared_postgres()?;
    let store = connect(&schema.url_with_schema()).await?;
    let good = store.add(7, "good", "").await?.id;
    let bad = store.add(8, "bad", "").await?.id;
    let worse = store.add(9, "worse", "").await?.id;
    let short = store.add(10, "short", "").await?.id;
    for position in 0..3 {
        store.add_named_url(short, "log", position.to_string()).await?;
    }
    let mut driver = driver(&schema).await?;
    driver.execute("UPDATE steps SET name = 'no\tname' WHERE name = 'bad'").await?;
    driver.execute("UPDATE steps SET started_at = 'infinity' WHERE name = 'worse'").await?;
    driver.execute("DELETE FROM step_urls WHERE position = 1").await?;

    let (read_good, read_bad, read_worse, read_short, of_good, of_bad) = tokio::join!(
        store.step(good),
        store.step(bad),
        store.step(worse),
        store.step(short),
        store.steps(7),
        store.steps(8)
    );
    assert!(read_good?.is_some());
    assert_eq!(of_good?.len(), 1);
    for (id, error) in [(bad, read_bad), (bad, of_bad.map(|_| None)), (worse, read_worse), (short, read_short)] {
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains(&format!("step {id} cannot be read back")), "{error}");
    }
    Ok(())
}

async fn no_number_left() -> TestResult {
    let schema = shared_postgres()?;
    let store = connect(&schema.url_with_schema()).await?;
    store.add(7, "compile", "").await?;
    driver(&schema).await?.execute("UPDATE steps SET number = 4294967295").await?;
    // A single add and a batch of adds are different statements.
    let single = store.add(7, "single", "").await;
    let (one, other, of_same_name) =
        tokio::join!(store.add(7, "test", ""), store.add(7, "package", ""), store.add(7, "compile", ""));
    for error in [single.unwrap_err(), one.unwrap_err(), other.unwrap_err(), of_same_name.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::CapacityExceeded);
        assert!(!error.may_have_applied() && !error.is_retryable());
    }
    assert_eq!(store.steps(7).await?.len(), 1);
    assert_eq!(store.add(8, "compile", "").await?.number.get(), 0);
    Ok(())
}

async fn deleted_step() -> TestResult {
    let schema = shared_postgres()?;
    let store = connect(&schema.url_with_schema()).await?;
    let first = store.add(7, "compile", "").await?.id;
    driver(&schema).await?.execute("DELETE FROM steps").await?;
    assert!(store.add(7, "compile", "").await?.id > first);
    Ok(())
}

async fn emptied_build() -> TestResult {
    let schema = shared_postgres()?;
    let store = connect(&schema.url_with_schema()).await?;
    let mut driver = driver(&schema).await?;
    for name in ["configure", "compile"] {
        store.add(7, name, "").await?;
    }
    driver.execute("DELETE FROM steps").await?;
    assert_eq!(store.add(7, "configure", "").await?.number.get(), 0);

    store.add(7, "compile", "").await?;
    driver.execute("DELETE FROM steps").await?;
    // The last two queue behind the first, and so share a batch.
    let (other, first, second) =
        tokio::join!(store.add(8, "compile", ""), store.add(7, "configure", ""), store.add(7, "compile", ""));
    assert_eq!([other?, first?, second?].map(|added| added.number.get()), [0, 0, 1]);
    Ok(())
}

async fn builds_of_one_batch() -> TestResult {
    let schema = shared_postgres()?;
    let store = connect(&schema.url_with_schema()).await?;
    for name in ["configure", "compile", "test"] {
        store.add(7, name, "").await?;
    }
    store.add(8, "configure", "").await?;
    // The last three queue behind the first, and so share a batch.
    let (first, long, short, empty) = tokio::join!(
        store.add(9, "configure", ""),
        store.add(7, "package", ""),
        store.add(8, "compile", ""),
        store.add(10, "configure", "")
    );
    assert_eq!([first?, long?, short?, empty?].map(|added| added.number.get()), [0, 3, 1, 0]);
    Ok(())
}

async fn pooler() -> TestResult {
    let schema = shared_postgres()?;
    let store = connect(&format!("{}&pooler=transaction", schema.url_with_schema())).await?;
    let step = store.add(7, "compile", "").await?.id;
    store.add_named_url(step, "log", "url").await?;
    assert_eq!(store.steps(7).await?[0].urls.len(), 1);
    assert!(store.describe().await?.warnings.iter().all(|warning| warning.contains("fsync")));
    let mut driver = driver(&schema).await?;
    let count = sqlx::query_scalar::<_, i64>(
        "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' AND application_name = $1",
    );
    assert_eq!(count.bind("steps").fetch_one(&mut driver).await?, 0);
    Ok(())
}
