use std::fmt;

use async_trait::async_trait;

use crate::{
    AddedStep, BuildId, Call, Error, ErrorKind, FinishStep, NewStep, Request, Response, Result, StartStep, StateString,
    Step, StepId, StepSelector, StepUrl, StepsStore, Timestamp,
};

/// A store whose calls are all handled by one function, for wrappers, proxies and test doubles.
///
/// [`Dispatch`] implements [`StepsStore`] with a handler.
#[async_trait]
pub trait Handler: fmt::Debug + Send + Sync {
    /// Handles the request and returns the [`Response`] variant that belongs to it.
    ///
    /// # Errors
    /// The errors of the [`StepsStore`] method.
    async fn handle(&self, request: Request) -> Result<Response>;
}

/// A store that passes all calls to one [`Handler`].
///
/// ```
/// use std::sync::Arc;
/// use steps_core::{Dispatch, Handler, Request, Response, Result, StepsStore, async_trait};
///
/// /// Prints each call before it passes it to the store.
/// #[derive(Debug)]
/// struct Printed(Arc<dyn StepsStore>);
///
/// #[async_trait]
/// impl Handler for Printed {
///     async fn handle(&self, request: Request) -> Result<Response> {
///         println!("{}", request.call());
///         request.send(&self.0).await
///     }
/// }
///
/// fn printed(store: Arc<dyn StepsStore>) -> Arc<dyn StepsStore> {
///     Arc::new(Dispatch(Printed(store)))
/// }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Dispatch<H>(pub H);

impl<H: Handler> Dispatch<H> {
    async fn done(&self, request: Request) -> Result<()> {
        let call = request.call();
        match self.0.handle(request).await? {
            Response::Done => Ok(()),
            other => Err(mismatch(call, &other)),
        }
    }
}

#[async_trait]
impl<H: Handler> StepsStore for Dispatch<H> {
    async fn add_step(&self, step: NewStep) -> Result<AddedStep> {
        let call = Call::add_step(&step);
        match self.0.handle(Request::AddStep(step)).await? {
            Response::Added(added) => Ok(added),
            other => Err(mismatch(call, &other)),
        }
    }

    async fn start_step(&self, id: StepId, start: StartStep) -> Result<()> {
        self.done(Request::StartStep(id, start)).await
    }

    async fn set_step_locks_acquired_at(&self, id: StepId, at: Timestamp) -> Result<()> {
        self.done(Request::SetStepLocksAcquiredAt(id, at)).await
    }

    async fn set_step_state_string(&self, id: StepId, state_string: StateString) -> Result<()> {
        self.done(Request::SetStepStateString(id, state_string)).await
    }

    async fn finish_step(&self, id: StepId, finish: FinishStep) -> Result<()> {
        self.done(Request::FinishStep(id, finish)).await
    }

    async fn add_url(&self, id: StepId, url: StepUrl) -> Result<()> {
        self.done(Request::AddUrl(id, url)).await
    }

    async fn get_step(&self, step: StepSelector) -> Result<Option<Step>> {
        let call = Call::get_step(&step);
        match self.0.handle(Request::GetStep(step)).await? {
            Response::Step(step) => Ok(step),
            other => Err(mismatch(call, &other)),
        }
    }

    async fn get_steps(&self, build_id: BuildId) -> Result<Vec<Step>> {
        match self.0.handle(Request::GetSteps(build_id)).await? {
            Response::Steps(steps) => Ok(steps),
            other => Err(mismatch(Call::get_steps(build_id), &other)),
        }
    }

    async fn close(&self) -> Result<()> {
        self.done(Request::Close).await
    }
}

/// The error for a handler that returned the response of another call. The write may have been applied.
fn mismatch(call: Call, response: &Response) -> Error {
    let response = match response {
        Response::Done => "Done",
        Response::Added(_) => "Added",
        Response::Step(_) => "Step",
        Response::Steps(_) => "Steps",
    };
    Error::new(ErrorKind::Corrupt, format!("the handler returned the wrong response {response}"))
        .with_call(call)
        .with_may_have_applied(true)
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use super::*;
    use crate::request::tests::samples;

    /// Expects one request and answers it.
    #[derive(Debug)]
    struct Canned(Request, Response);

    #[async_trait]
    impl Handler for Canned {
        async fn handle(&self, request: Request) -> Result<Response> {
            assert_eq!(request, self.0);
            Ok(self.1.clone())
        }
    }

    /// The result of a future that never waits.
    fn ready<T>(future: impl Future<Output = T>) -> T {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => value,
            Poll::Pending => panic!("the future is not ready"),
        }
    }

    #[test]
    fn each_request_calls_its_method_and_each_method_passes_on_its_request() {
        for (request, response) in samples() {
            let store = Dispatch(Canned(request.clone(), response.clone()));
            assert_eq!(ready(request.send(&store)).unwrap(), response);
        }
    }

    #[test]
    fn the_response_of_another_call_is_an_error_that_names_the_call() {
        for (request, response) in samples() {
            let wrong = if response == Response::Done { Response::Step(None) } else { Response::Done };
            let call = request.call();
            let store = Dispatch(Canned(request.clone(), wrong));
            let error = ready(request.send(&store)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert_eq!(error.call(), Some(call));
            assert_eq!(error.may_have_applied(), call.operation().is_write());
        }
    }
}
