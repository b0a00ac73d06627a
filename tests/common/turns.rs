//! Long loads take turns: beside many others, a load measures those and not the program under test.
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Loads at a time; the tests that wait for an event run beside them.
static PLACES: [Mutex<()>; 2] = [Mutex::new(()), Mutex::new(())];
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// Waits for a place among the long loads.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    taken(NEXT.fetch_add(1, Ordering::Relaxed) % PLACES.len())
}

/// Waits until no other long load runs.
pub(crate) fn alone() -> [MutexGuard<'static, ()>; 2] {
    [taken(0), taken(1)]
}

/// A test that failed in its turn has ended it.
fn taken(place: usize) -> MutexGuard<'static, ()> {
    PLACES[place].lock().unwrap_or_else(PoisonError::into_inner)
}
