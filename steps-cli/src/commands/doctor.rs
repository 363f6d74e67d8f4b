use std::process::ExitCode;

use serde::Serialize;
use steps::{Connector, Description, Error, ErrorKind};

use crate::{
    cli::Doctor,
    failure::{self, Failure},
    output::{
        self, json,
        table::{self, Look},
        text,
    },
    store_url::StoreUrl,
};

/// What `--json` gives.
#[derive(Debug, Serialize)]
struct Diagnosis {
    /// Whether the store answered. Its server may, where this is false.
    reachable: bool,
    #[serde(flatten)]
    description: Option<Description>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<&'static str>,
}

pub(super) async fn doctor(store: &StoreUrl, doctor: Doctor) -> Result<ExitCode, Failure> {
    match Connector::builtin().describe(store.without_creating().as_str()).await {
        Ok(description) if doctor.json => {
            json::line(&Diagnosis { reachable: true, description: Some(description), error: None, advice: None })?;
            Ok(ExitCode::SUCCESS)
        }
        Ok(description) => {
            output::data(&shown(&description))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            let (reason, advice) = (failure::chain(&error), advice(&error));
            // Another answer than none: of a server that has no store yet, say, or of a file of another program.
            let what = if error.kind() == ErrorKind::Unavailable { "is not reachable" } else { "cannot be used" };
            output::error(&format!("the store {} {what}\n{reason}", store.without_secrets()));
            output::note(advice);
            if doctor.json {
                let (error, advice) = (Some(reason), Some(advice));
                json::line(&Diagnosis { reachable: false, description: None, error, advice })?;
            }
            Ok(ExitCode::FAILURE)
        }
    }
}

fn shown(description: &Description) -> String {
    let sentences = |sentences: &[String]| sentences.iter().map(|it| text::shown(it)).collect::<Vec<_>>().join("\n");
    let mut fields = vec![
        ("store", text::shown(&description.location).into_owned()),
        ("reachable", "yes".to_owned()),
        ("backend", text::shown(&description.backend).into_owned()),
        ("format", text::shown(&description.format).into_owned()),
        ("promises", sentences(&description.promises)),
    ];
    if let Some(greatest) = description.greatest_build_id {
        fields.push(("builds", format!("up to {greatest}")));
    }
    if !description.warnings.is_empty() {
        fields.push(("but", sentences(&description.warnings)));
    }
    table::of_fields(fields, Look::of_stdout())
}

fn advice(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::Config => {
            "check --store or STEPS_STORE; where there is no store yet, `steps run` or `steps add` makes one"
        }
        ErrorKind::ReadOnly => "ask for the right to write; to read only, add mode=ro to the URL",
        ErrorKind::CapacityExceeded => "make room where the store keeps its data",
        ErrorKind::Corrupt => "restore the store from a backup",
        ErrorKind::Unavailable => "see whether its server runs, or whether another program holds it, and try again",
        _ => "see what the error says",
    }
}
