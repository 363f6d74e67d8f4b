//! Connects to the store by its URL, as an application does.

use std::path::Path;

use steps::{Backend, ConnectOptions, Connector, ErrorKind, Result, StepsStore, StepsStoreExt};
use steps_redb::RedbBackend;

#[tokio::test]
async fn a_url_leads_to_its_file() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("redb:{}", folder.path().join("steps.redb").display());
    let connector = Connector::builtin().with_backend(RedbBackend);
    let store = connector.connect(&url).await?;
    let step = store.add(7, "compile", "running").await?;
    assert_eq!(step.name, "compile");
    store.close().await?;
    assert_eq!(connector.connect(&url).await?.steps(7).await?.len(), 1);
    for url in ["redb:", "redb:a?mode=ro", "redb:a%20b", "redb:/no/such/folder/steps.redb"] {
        assert_eq!(connector.connect(url).await.unwrap_err().kind(), ErrorKind::Config, "{url}");
    }
    Ok(())
}

#[tokio::test]
async fn a_description_names_the_file() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("steps.redb").display().to_string();
    let description = RedbBackend.describe(&format!("redb:{path}"), &ConnectOptions::new()).await?;
    assert_eq!(description.location, path);
    Ok(())
}

#[test]
fn a_relative_path_depends_on_the_folder() {
    let folder = Path::new("/builds");
    for (url, expected) in [("redb:a/b", "redb:/builds/a/b"), ("redb:/a", "redb:/a"), ("redb:", "redb:")] {
        assert_eq!(RedbBackend.absolute_url(url, folder), expected);
    }
}
