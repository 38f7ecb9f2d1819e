//! Panics: faults of nanokimi itself. What one chat has made may set one off, and must not end what others wait for.
//!
//! Whoever works on something of one chat does it in [`contain`], or in [`blocking`] where it holds a thread, and goes on
//! with [`BrokeOff`] in the place of the result. The words of a panic may be a piece of a message, so that they end here:
//! the hook in `cli::log` has told the place in the code already.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use futures_util::FutureExt;
use tokio::task::spawn_blocking;

/// The work panicked, and there is no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokeOff;

impl fmt::Display for BrokeOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a fault of nanokimi's own broke it off; the log names the place")
    }
}

impl std::error::Error for BrokeOff {}

/// Does the work; a panic in it ends no more than the work. What the work shares with others must be whole at every
/// `.await` and in every call.
pub async fn contain<T>(work: impl Future<Output = T>) -> Result<T, BrokeOff> {
    AssertUnwindSafe(work).catch_unwind().await.map_err(|_| BrokeOff)
}

/// The same of a plain call.
pub fn contain_call<T>(work: impl FnOnce() -> T) -> Result<T, BrokeOff> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| BrokeOff)
}

/// Does work that holds a thread, where that holds up nobody.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, BrokeOff> {
    spawn_blocking(work).await.map_err(|_| BrokeOff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_ends_the_work_and_its_words_go_nowhere() {
        assert_eq!(contain(async { 7 }).await, Ok(7));
        assert_eq!((blocking(|| 7).await, contain_call(|| 7)), (Ok(7), Ok(7)));
        let said = "what Ana wrote";
        let (async_work, thread) = (contain(async { panic!("{said}") }), blocking(move || panic!("{said}")));
        let call = contain_call(|| panic!("{said}"));
        let ends: [Result<(), BrokeOff>; 3] = [async_work.await, thread.await, call];
        assert_eq!(ends, [Err(BrokeOff); 3]);
        assert!(!format!("{BrokeOff} {BrokeOff:?}").contains("Ana"));
    }
}
