use std::{
    env,
    io::{self, BufRead, Write, stdin, stdout},
    process::{self, ExitCode},
    sync::Arc,
    thread,
};

use serde::Serialize;
use steps_core::StepsStore;
use tokio::{runtime, sync::mpsc};

use super::{
    BANNER, CHILD,
    protocol::{Handshake, NumberedRequest, NumberedResponse, OpenResult, RemoteError},
};
use crate::{CaseContext, Fixture, StoreFactory, context::FreshBuilds, handle::catch_panic};

/// Serves the requests of the parent process, if the suite started this process as a child. Returns `None` otherwise.
///
/// [`main`](crate::main) calls this function first. A program that runs the cases through [`run`](crate::run) or
/// [`trials`](crate::trials) must call it before anything else, unless its factory opts out of
/// [`Feature::Processes`](crate::Feature::Processes): those cases start the program again, without arguments, as a
/// child.
#[must_use = "a child must exit with this code"]
pub fn child(factory: &impl StoreFactory) -> Option<ExitCode> {
    env::var_os(CHILD)?;
    Some(match serve(factory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("a child of the conformance suite: {error}");
            ExitCode::FAILURE
        }
    })
}

fn serve(factory: &impl StoreFactory) -> io::Result<()> {
    write_line(BANNER)?;
    let mut line = String::new();
    stdin().lock().read_line(&mut line)?;
    let handshake: Handshake = serde_json::from_str(&line)?;
    let runtime = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let builds = Arc::new(FreshBuilds::new(&factory.profile()));
        // Reads before the store is open, so that the child exits if the parent exits meanwhile.
        let mut requests = requests();
        let context = CaseContext::new(&handshake.case, builds, handshake.seed);
        context.clock().set(handshake.now);
        let opened = catch_panic(factory.open(&handshake.token, &context)).await;
        let fixture = opened.unwrap_or_else(|panic| Err(panic.into()));
        write_json(&OpenResult::from(fixture.as_ref().map(drop).map_err(ToString::to_string)))?;
        let Ok(Fixture { store, guard: _guard, .. }) = fixture else { return Ok(()) };
        while let Some(NumberedRequest { number, request }) = requests.recv().await {
            let store: Arc<dyn StepsStore> = Arc::clone(&store);
            tokio::spawn(async move {
                let result = request.send(&*store).await.map_err(RemoteError::from);
                write_json(&NumberedResponse { number, result })
            });
        }
        Ok(())
    })
}

/// The requests of the parent. Exits this process at once when the parent exits.
fn requests() -> mpsc::UnboundedReceiver<NumberedRequest> {
    let (sender, receiver) = mpsc::unbounded_channel();
    thread::spawn(move || {
        for line in stdin().lock().lines() {
            let Ok(request) = line.and_then(|line| Ok(serde_json::from_str(&line)?)) else { break };
            if sender.send(request).is_err() {
                break;
            }
        }
        process::exit(0);
    });
    receiver
}

fn write_json(value: &impl Serialize) -> io::Result<()> {
    write_line(&serde_json::to_string(value)?)
}

/// Writes a line with a single write, so that the parent never reads a part of a line.
fn write_line(line: &str) -> io::Result<()> {
    let mut stdout = stdout().lock();
    stdout.write_all(format!("{line}\n").as_bytes())?;
    stdout.flush()
}
