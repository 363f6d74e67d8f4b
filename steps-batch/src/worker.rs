use std::future::Future;

use crate::BatchError;

/// What a lane does with its batches.
pub trait Worker: Send + 'static {
    /// What it is asked for.
    type Request: Send + Sync + 'static;
    /// What it answers.
    type Answer: Send + 'static;

    /// The name of the backend, for errors.
    const BACKEND: &'static str;

    /// The greatest number of requests in a batch.
    const BATCH: usize;

    /// About how many bytes the request takes in its batch.
    fn size(request: &Self::Request) -> usize;

    /// Sees that there is a connection, before a batch is made. Whose time is up meanwhile was certainly not
    /// applied, so whatever may take long without sending a request belongs here. It is dropped half-way when
    /// nobody waits any longer.
    ///
    /// # Errors
    /// After a [busy](BatchError::is_transient) failure the lane tries again while its callers have time; with any other
    /// all who wait are answered.
    fn connect(&mut self) -> impl Future<Output = Result<(), BatchError>> + Send {
        async { Ok(()) }
    }

    /// Carries out the requests, all in one transaction, and gives an answer for each, in their order.
    ///
    /// # Errors
    /// A failure of the batch as a whole. After a [busy](BatchError::is_transient) one all requests wait again;
    /// after one that [applied nothing](BatchError::may_have_applied) each is tried alone, since
    /// one may have spoilt it for all; after any other, calls that do no harm a second time are tried again (D6).
    fn run(
        &mut self,
        requests: &[Self::Request],
    ) -> impl Future<Output = Result<Vec<Result<Self::Answer, BatchError>>, BatchError>> + Send;

    /// The same, but a request whose lock somebody else has is answered busy at once, and is tried again later:
    /// the others go on meanwhile. For workers that can tell who is kept from what; for others it is `run`.
    ///
    /// # Errors
    /// As `run`.
    fn run_without_waiting(
        &mut self,
        requests: &[Self::Request],
    ) -> impl Future<Output = Result<Vec<Result<Self::Answer, BatchError>>, BatchError>> + Send {
        self.run(requests)
    }

    /// Closes the connection.
    fn close(&mut self) -> impl Future<Output = ()> + Send;
}

/// For each request of a batch, the place of the first that is equal to it: reads that ask for the same can share an
/// answer.
#[must_use]
pub fn first_occurrence_indices<R: PartialEq>(requests: &[R]) -> Vec<usize> {
    let first_equal = |request| requests.iter().position(|other| other == request);
    requests.iter().enumerate().map(|(place, request)| first_equal(request).unwrap_or(place)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_has_the_place_of_its_first_equal() {
        assert_eq!(first_occurrence_indices(&["a", "b", "a", "c", "b"]), [0, 1, 0, 3, 1]);
        assert_eq!(first_occurrence_indices::<u8>(&[]), []);
    }
}
