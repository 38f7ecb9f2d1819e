//! Panics: faults of nanokimi itself. Something in one chat may set one off, and must not end what other
//! chats wait for.
//!
//! Work on something of one chat is done in [`catch_panic`], or in [`run_blocking`] if it holds a thread.
//! After a panic the caller gets [`WorkPanicked`] in place of the result. The words of a panic may be a piece
//! of a message, so they end here. The hook in `cli::log` has logged the place in the code already.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use tokio::task::spawn_blocking;

/// The work panicked, and there is no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkPanicked;

impl fmt::Display for WorkPanicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a fault of nanokimi's own broke it off; the log names the place")
    }
}

impl std::error::Error for WorkPanicked {}

/// Locks, even if somebody has panicked with the lock in hand: what a lock guards is consistent in every call.
pub fn lock_unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does the work. A panic in it ends no more than the work. What the work shares with others must be
/// consistent at every `.await` and in every call.
pub async fn catch_panic<T>(work: impl Future<Output = T>) -> Result<T, WorkPanicked> {
    AssertUnwindSafe(work).catch_unwind().await.map_err(|_| WorkPanicked)
}

/// The same for a plain call.
pub fn catch_panic_in_call<T>(work: impl FnOnce() -> T) -> Result<T, WorkPanicked> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| WorkPanicked)
}

/// Does work that holds a thread, on a thread where it holds up nobody.
pub async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, WorkPanicked> {
    spawn_blocking(work).await.map_err(|_| WorkPanicked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_ends_the_work_and_its_words_go_nowhere() {
        assert_eq!(catch_panic(async { 7 }).await, Ok(7));
        assert_eq!((run_blocking(|| 7).await, catch_panic_in_call(|| 7)), (Ok(7), Ok(7)));
        let said = "what Ana wrote";
        let (async_work, thread) =
            (catch_panic(async { panic!("{said}") }), run_blocking(move || panic!("{said}")));
        let call = catch_panic_in_call(|| panic!("{said}"));
        let ends: [Result<(), WorkPanicked>; 3] = [async_work.await, thread.await, call];
        assert_eq!(ends, [Err(WorkPanicked); 3]);
        assert!(!format!("{WorkPanicked} {WorkPanicked:?}").contains("Ana"));
    }
}
