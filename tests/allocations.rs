//! A hand-off takes nothing from the heap, nor gives anything back: a million connections are handed off and closed under
//! an allocator that counts. The script that stands in for sockets is that of `benches/instructions`. What processes hold
//! meanwhile is looked at from outside in `tests/scale`.
#![allow(clippy::unwrap_used)]
#[path = "../benches/instructions/script.rs"]
mod script;

use script::{App, CASES};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Connections until every table has the size that it keeps.
const WARM_UP: u64 = 100_000;
const CONNECTIONS: u64 = 1_000_000;

thread_local! {
    /// Calls of the allocator by this thread, so that tests beside each other do not count each other's.
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counted.
struct Counting;

// SAFETY: every call is passed unchanged to the system's allocator. The counter is a plain cell that needs no allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
        // SAFETY: the caller keeps the promises of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        CALLS.set(CALLS.get() + 1);
        // SAFETY: as above; what is given back was taken from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, bytes) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Calls of the allocator after the warm-up.
fn calls_after_warm_up(name: &str) -> u64 {
    let case = CASES.iter().find(|case| case.name == name).unwrap();
    let mut app = App::new(case);
    assert_eq!(app.run_to(WARM_UP), WARM_UP);
    let before = CALLS.get();
    assert_eq!(app.run_to(CONNECTIONS), CONNECTIONS);
    CALLS.get() - before
}

#[test]
fn a_million_connections_in_turn_leave_the_heap_as_it_was() {
    assert_eq!(calls_after_warm_up("round-robin-8"), 0);
}

#[test]
#[ignore = "long: a second million connections"]
fn a_million_connections_of_known_clients_leave_the_heap_as_it_was() {
    assert_eq!(calls_after_warm_up("sticky-1000"), 0);
}

#[test]
fn the_allocator_counts() {
    let before = CALLS.get();
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(CALLS.get() - before, 2);
}
