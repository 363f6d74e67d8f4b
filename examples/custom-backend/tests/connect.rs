//! An application chooses the store by its URL.

use steps::{Connector, ErrorKind, Result, StepsStore, StepsStoreExt};
use steps_redb::RedbBackend;

#[tokio::test]
async fn a_file_is_chosen_by_its_url() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("redb:{}", folder.path().join("steps.redb").display());
    let connector = Connector::builtin().with_backend(RedbBackend);
    let store = connector.connect(&url).await?;
    let step = store.add(7, "compile", "running").await?;
    assert_eq!(step.name, "compile");
    store.close().await?;
    assert_eq!(connector.connect(&url).await?.steps(7).await?.len(), 1);
    for url in ["redb:", "redb:a?mode=ro", "redb:/no/such/folder/steps.redb"] {
        assert_eq!(connector.connect(url).await.unwrap_err().kind(), ErrorKind::Config, "{url}");
    }
    Ok(())
}
