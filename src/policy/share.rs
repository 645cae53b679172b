//! How the requests in flight are divided among workers.

/// How many of `limit` requests a worker may hold while `demanding` workers, itself included, want
/// some and there are none to spare. At least one: no worker starves.
#[must_use]
pub fn share(limit: usize, demanding: usize) -> usize {
    limit.div_ceil(demanding.max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_the_limit_and_are_never_nothing() {
        assert_eq!(share(64, 2), 32);
        assert_eq!(share(10, 3), 4);
        assert_eq!(share(1, 8), 1);
        assert_eq!(share(64, 0), 64);
    }
}
