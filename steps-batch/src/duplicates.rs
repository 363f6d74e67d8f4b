/// For each request, the index of the first one that is equal to it. Equal reads of a batch can share a response.
#[must_use]
pub fn first_occurrence_indices<R: PartialEq>(requests: &[R]) -> Vec<usize> {
    let first_equal = |request| requests.iter().position(|other| other == request);
    requests.iter().enumerate().map(|(index, request)| first_equal(request).unwrap_or(index)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_has_the_index_of_its_first_equal() {
        assert_eq!(first_occurrence_indices(&["a", "b", "a", "c", "b"]), [0, 1, 0, 3, 1]);
        assert_eq!(first_occurrence_indices::<u8>(&[]), []);
    }
}
