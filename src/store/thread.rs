//! Threads, of which the system may have none to give: that is an error to tell, not a panic.

use std::thread::{Builder, Scope, ScopedJoinHandle};

use super::Error;

/// Starts a thread in a scope.
///
/// # Errors
/// [`Error::NoThread`] when there is no room for another.
pub fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    body: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>, Error> {
    let spawned = Builder::new().name(name.to_owned()).spawn_scoped(scope, body);
    spawned.map_err(|source| Error::NoThread { name: name.to_owned(), source })
}
