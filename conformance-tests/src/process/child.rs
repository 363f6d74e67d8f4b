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
    CHILD, GREETING,
    protocol::{Hello, Opened, Reply, Request},
};
use crate::{CaseContext, Fixture, StoreFactory, context::FreshBuilds, handle::catch_panic};

/// Serves as another process of the suite, if this one was started as such; otherwise does nothing.
///
/// [`main`](crate::main) begins with it. A program that runs the cases in another way, by [`run`](crate::run) or
/// [`trials`](crate::trials), does so too, before anything else, unless its factory opts out of
/// [`Feature::Processes`](crate::Feature::Processes): its cases run this program again, without arguments, as a child.
#[must_use = "a child ends with this code and does nothing else"]
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
    say_line(GREETING)?;
    let mut hello = String::new();
    stdin().lock().read_line(&mut hello)?;
    let hello: Hello = serde_json::from_str(&hello)?;
    let runtime = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let builds = Arc::new(FreshBuilds::new(&factory.profile()));
        // What opens may take long, and the parent may be gone before.
        let mut requests = requests();
        let context = CaseContext::new(&hello.case, builds, hello.seed);
        context.clock().set(hello.now);
        let opened = catch_panic(factory.open(&hello.token, &context)).await;
        let fixture = opened.unwrap_or_else(|panic| Err(panic.into()));
        say(&Opened::from(fixture.as_ref().map(drop).map_err(ToString::to_string)))?;
        let Ok(Fixture { store, guard: _guard, .. }) = fixture else { return Ok(()) };
        while let Some(Request { number, call }) = requests.recv().await {
            let store: Arc<dyn StepsStore> = Arc::clone(&store);
            tokio::spawn(async move { say(&Reply { number, answer: call.answer(&*store).await }) });
        }
        Ok(())
    })
}

/// What the parent asks for. When it is gone, so is this process, whatever it does.
fn requests() -> mpsc::UnboundedReceiver<Request> {
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

fn say(value: &impl Serialize) -> io::Result<()> {
    say_line(&serde_json::to_string(value)?)
}

/// One write a line, so that a line is there whole or not at all.
fn say_line(line: &str) -> io::Result<()> {
    let mut stdout = stdout().lock();
    stdout.write_all(format!("{line}\n").as_bytes())?;
    stdout.flush()
}
