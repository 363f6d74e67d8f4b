use std::process::ExitCode;

use serde::Serialize;
use steps::{Description, Error, ErrorKind};

use crate::{
    cli::Doctor,
    command_error::{self, CommandError},
    connect,
    output::{self, json, layout::Look, table, text},
    store_url::StoreUrl,
};

/// The output of `--json`.
#[derive(Debug, Serialize)]
struct Diagnosis {
    /// Whether the store answered. The server may be reachable even if the store is not.
    reachable: bool,
    #[serde(flatten)]
    description: Option<Description>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<&'static str>,
}

pub(super) async fn doctor(store: &StoreUrl, doctor: Doctor) -> Result<ExitCode, CommandError> {
    match connect::describe(store).await {
        Ok(description) if doctor.json => {
            json::line(&Diagnosis { reachable: true, description: Some(description), error: None, advice: None })?;
            Ok(ExitCode::SUCCESS)
        }
        Ok(description) => {
            let fields = fields(&description);
            output::table(|lines| table::of_fields(fields, Look::of_stdout(), lines))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            let reason = command_error::chain(&error);
            let advice = advice(&error);
            // A server without a store, or a file of another program, was reached but cannot be used.
            let problem = if error.kind() == ErrorKind::Unavailable { "is not reachable" } else { "cannot be used" };
            output::error(&format!("the store {} {problem}\n{reason}", store.redacted()));
            output::note(advice);
            if doctor.json {
                let diagnosis =
                    Diagnosis { reachable: false, description: None, error: Some(reason), advice: Some(advice) };
                json::line(&diagnosis)?;
            }
            Ok(ExitCode::FAILURE)
        }
    }
}

fn fields(description: &Description) -> Vec<(&'static str, String)> {
    let lines = |texts: &[String]| texts.iter().map(|text| text::shown(text)).collect::<Vec<_>>().join("\n");
    let mut fields = vec![
        ("store", text::shown(&description.location).into_owned()),
        ("reachable", "yes".to_owned()),
        ("backend", text::shown(&description.backend).into_owned()),
        ("format", text::shown(&description.format).into_owned()),
        ("promises", lines(&description.promises)),
    ];
    if let Some(greatest) = description.greatest_build_id {
        fields.push(("builds", format!("up to {greatest}")));
    }
    if !description.warnings.is_empty() {
        fields.push(("but", lines(&description.warnings)));
    }
    fields
}

fn advice(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::Config => "check --store or STEPS_STORE; `steps run` or `steps add` creates a missing store",
        ErrorKind::ReadOnly => "get write access, or add mode=ro to the URL to only read",
        ErrorKind::CapacityExceeded => "free space for the data of the store",
        ErrorKind::Corrupt => "restore the store from a backup",
        ErrorKind::Unavailable => {
            "check that the server runs and that no other program locks the store, then try again"
        }
        _ => "see the error message",
    }
}
